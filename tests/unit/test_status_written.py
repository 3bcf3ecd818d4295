"""The operator's part of a status reaches the object that was looked at, or nothing."""

import pytest

from kernelsearch.controller import status
from kernelsearch.controller.cluster import ConflictError, NotFoundError

METADATA = {"name": "s", "namespace": "n", "uid": "1", "resourceVersion": "7", "labels": {"a": "b"}}
BODY = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": METADATA}


class Server:
    """Takes one status, or tells what it was told to."""

    def __init__(self, error=None):
        self.error, self.taken = error, None

    async def apply_status(self, manifest, _manager):
        if self.error:
            raise self.error
        self.taken = manifest
        return manifest


async def test_it_names_the_object_and_the_version_that_were_looked_at():
    server = Server()

    await status.write(server, BODY, {"phase": "Running"})

    assert server.taken["metadata"] == {"name": "s", "namespace": "n", "uid": "1", "resourceVersion": "7"}
    assert server.taken["status"] == {"phase": "Running"}


async def test_an_object_that_was_deleted_meanwhile_is_a_conflict_and_no_failure():
    with pytest.raises(ConflictError, match="deleted meanwhile"):
        await status.write(Server(NotFoundError("404")), BODY, {})
