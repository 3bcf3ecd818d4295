"""What is wrong with a manifest is told with its field, its value and what to write instead."""

import re
from pathlib import Path

import pytest
import yaml

from kernelsearch.api import validation
from kernelsearch.api.validation import InvalidManifestError
from kernelsearch.cli import manifest, plan

FOLDER = Path(__file__).parent / "manifests"
BAD = sorted((FOLDER / "bad").glob("*.yaml"))


def says(path: Path) -> list[str]:
    return re.findall(r"^# says: (.*)$", path.read_bytes().decode("latin-1"), re.MULTILINE)


def faults(path: Path | str) -> str:
    with pytest.raises(InvalidManifestError) as caught:
        plan.settle(plan.Asked(str(path)))
    return str(caught.value)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "search.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_there_are_enough_of_them():
    assert len(BAD) >= 20


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_is_explained(path, monkeypatch):
    monkeypatch.delenv("KERNELSEARCH_SECRET_DEEP_SEEK_API_KEY", raising=False)

    told = faults(path)

    assert says(path)
    for fragment in says(path):
        assert fragment in told


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_an_explanation_speaks_neither_pydantic_nor_python(path):
    told = faults(path)

    assert not re.search(r"pydantic|Traceback|Input should|NoneType|<class|validation error", told)


def test_a_stored_object_may_hold_fields_of_a_newer_schema():
    data = yaml.safe_load((FOLDER / "good.yaml").read_text())
    data["spec"]["later"] = data["spec"]["model"]["later"] = {"a": 1}

    assert validation.stored({**data, "status": {"phase": "Later"}}).spec.search.chains == 8
    with pytest.raises(InvalidManifestError, match="later: is no field here"):
        validation.read(data)


def test_a_stored_object_that_cannot_be_read_says_why():
    data = yaml.safe_load((FOLDER / "good.yaml").read_text())
    data["spec"]["budget"] = 3

    with pytest.raises(InvalidManifestError, match=r"spec\.budget: is 3; write an object"):
        validation.stored(data)


def test_a_good_manifest_is_read_with_its_text():
    search, text = manifest.load(str(FOLDER / "good.yaml"))

    assert (search.metadata.name, search.spec.search.chains) == ("relu", 8)
    assert text == (FOLDER / "good.yaml").read_text()


def test_all_faults_are_told_at_once(tmp_path):
    text = (FOLDER / "good.yaml").read_text().replace("[cpp]", "[c++]").replace("name: relu", "name: ReLU")

    told = faults(written(tmp_path, text + "  budget: {maxTokens: -1}\n"))

    assert [line.split(":")[0] for line in told.splitlines()] == ["line 4", "line 11", "line 19"]


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbf" + (FOLDER / "good.yaml").read_bytes())

    assert manifest.load(str(path))[0].metadata.name == "relu"


def test_a_leading_document_mark_and_a_trailing_one_are_no_fault(tmp_path):
    path = written(tmp_path, f"---\n{(FOLDER / 'good.yaml').read_text()}---\n")

    assert manifest.load(str(path))[0].metadata.name == "relu"


def test_a_date_is_a_text(tmp_path):
    text = (FOLDER / "good.yaml").read_text().replace("some-model", "2025-01-20")

    assert manifest.load(str(written(tmp_path, text)))[0].spec.model.name == "2025-01-20"


def test_metadata_may_hold_what_kubernetes_puts_there(tmp_path):
    more = "  name: relu\n  namespace: x\n  labels: {a: b}\n  annotations: {c: d}\n"
    text = (FOLDER / "good.yaml").read_text().replace("  name: relu\n", more)

    assert manifest.load(str(written(tmp_path, text)))[0].metadata.name == "relu"


def test_an_anchor_may_be_used_where_a_text_stands_twice(tmp_path):
    text = (FOLDER / "good.yaml").read_text().replace("name: relu", "name: &n relu").replace("some-model", "*n")

    assert manifest.load(str(written(tmp_path, text)))[0].spec.model.name == "relu"


def test_a_missing_file_is_told(tmp_path):
    assert "no such file" in faults(tmp_path / "none.yaml")


def test_a_folder_is_told(tmp_path):
    assert "cannot be read" in faults(tmp_path)


def test_what_is_too_long_for_a_manifest_is_refused(tmp_path):
    assert "bytes" in faults(written(tmp_path, "# x\n" * 300_000))


def test_a_tag_of_python_is_refused_and_not_obeyed(tmp_path):
    told = faults(written(tmp_path, "kind: !!python/object/apply:os.system ['exit 7']\n"))

    assert "could not determine a constructor" in told


def test_an_integer_of_thousands_of_digits_is_refused(tmp_path):
    assert "cannot be read" in faults(written(tmp_path, f"kind: {'9' * 5000}\n"))


def test_a_key_that_is_no_text_is_refused(tmp_path):
    text = (FOLDER / "good.yaml").read_text()

    assert "is no field here" in faults(written(tmp_path, text + "  7: x\n"))


def test_a_key_that_is_an_object_is_refused(tmp_path):
    text = (FOLDER / "good.yaml").read_text()

    assert "search.yaml" not in faults(written(tmp_path, text + "  {a: b}: x\n"))


@pytest.mark.parametrize("example", ["quickstart", "attention", "endpoint"])
def test_every_example_is_valid(root, example):
    search, _ = manifest.load(str(root / "examples" / f"{example}.yaml"))

    assert search.metadata.name == example
