"""Bad manifests end with exit code 2 and a message that names field, value and remedy; the examples load."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernelsearch.cli import main, manifest

BAD = sorted((Path(__file__).parent / "manifests/bad").glob("*.yaml"))


def _expected(path: Path) -> list[str]:
    return [line.removeprefix("# expect: ") for line in path.read_text().splitlines() if line.startswith("# expect: ")]


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_a_bad_manifest_is_refused_with_its_remedy(path, tmp_path):
    done = CliRunner().invoke(main, ["run", "-f", str(path), "--out", str(tmp_path / "out")])

    assert done.exit_code == 2, done.output
    assert [e for e in _expected(path) if e not in done.output] == [], done.output


def test_there_are_enough_bad_manifests():
    assert len(BAD) >= 20


@pytest.mark.parametrize("name", ["quickstart", "attention", "endpoint"])
def test_the_examples_load(name, root):
    assert manifest.load(root / f"examples/{name}.yaml").metadata.name == name


def test_a_missing_file_is_said(tmp_path):
    done = CliRunner().invoke(main, ["run", "-f", str(tmp_path / "absent.yaml")])

    assert done.exit_code == 2
    assert "cannot be read" in done.output


def test_the_crds_are_current(root):
    done = subprocess.run([sys.executable, "-m", "kernelsearch.cli", "crd", "--check"], cwd=root, check=False)

    assert done.returncode == 0


def test_a_secret_becomes_an_environment_variable():
    from kernelsearch.api.references import KeyRef

    assert manifest.secret_variable(KeyRef(name="deepseek", key="api-key")) == "KERNELSEARCH_SECRET_DEEPSEEK_API_KEY"
