"""The images that users build are as small as they are said to be."""

import json
import tarfile

import pytest

from cluster import images

MOST_BYTES = 200 * 10**6


@pytest.mark.needs("own_cluster")
def test_operator_and_runner_add_less_than_200_mb_to_their_base():
    with tarfile.open(images.build(images.OPERATOR)) as archive:
        (described,) = json.load(archive.extractfile("manifest.json"))
        sizes = [archive.getmember(name).size for name in described["Layers"]]

    assert len(sizes) > 1, "the base's layer has to be a layer of its own"
    assert sum(sizes[1:]) < MOST_BYTES
