"""The shape of the repository: traps avoided, generated files current, versions agree, modules say their purpose."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import kernelsearch
import kernelverify
from kernelsearch.api.resource import VERSION
from kernelsearch.cli import definitions

PACKAGES = ("operator/kernelsearch", "verifier-image/kernelverify", "verifier-image/kernelverify_api")
LONGEST_MODULE = 520
"""Lines. Most are under 300; the longest isolates candidates and is one subject."""
LARGEST_FILE = 256 * 1024
"""Bytes. A repository is read; data, weights and pictures of this size belong elsewhere."""
LOCK = {"constraints.txt", "uv.lock"}


def modules(root: Path) -> list[Path]:
    return [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]


def tracked(root: Path) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no git checkout: the list of files comes from git")
    return [root / name for name in done.stdout.split("\0") if name and (root / name).is_file()]


@pytest.mark.parametrize("folder", ["operator", "tests/operator"])
def test_operator_is_a_folder_and_never_a_package(root, folder):
    # With an `__init__.py` it would take the place of the standard library's `operator`, which `collections` imports.
    assert not (root / folder / "__init__.py").exists()


def test_the_standard_librarys_operator_is_still_itself():
    import operator

    assert operator.add(1, 2) == 3


def test_versions_agree(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    chart = yaml.safe_load((root / "charts/kernelsearch/Chart.yaml").read_text())

    assert {project["version"]} == {kernelsearch.__version__, kernelverify.__version__}
    assert {project["version"]} == {chart["version"], chart["appVersion"]}


def test_the_changelog_knows_the_version(root):
    version = re.escape(kernelsearch.__version__)

    assert re.search(rf"^## .*({version}|Unreleased)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_generated_files_are_current(root):
    for folder in ("crds", "charts/kernelsearch/files/crds"):
        assert definitions.stale(root / folder) == [], "run `kernelsearch crd`"
    assert not definitions.page_is_stale(root / "docs/fields.md"), "run `kernelsearch crd`"


def test_nothing_but_generated_files_is_in_crds(root):
    assert {path.name for path in (root / "crds").iterdir()} == definitions.files().keys()


def test_crds_and_examples_speak_of_the_version_of_the_models(root):
    for path in (root / "crds").glob("*.yaml"):
        served = [each["name"] for each in yaml.safe_load(path.read_text())["spec"]["versions"]]
        assert served == [VERSION]
    for path in (root / "examples").glob("*.yaml"):
        assert f"/{VERSION}\n" in path.read_text()


def test_every_module_starts_with_a_docstring(root):
    silent = [str(path) for path in modules(root) if not ast.get_docstring(ast.parse(path.read_text()))]

    assert modules(root)
    assert silent == []


def test_modules_stay_readable(root):
    long = {str(path): len(path.read_text().splitlines()) for path in modules(root)}

    assert {path: lines for path, lines in long.items() if lines > LONGEST_MODULE} == {}


def test_no_big_file_is_tracked(root):
    big = [str(path) for path in tracked(root) if path.stat().st_size > LARGEST_FILE and path.name not in LOCK]

    assert big == []


def test_no_result_of_a_run_is_tracked(root):
    names = {path.relative_to(root).parts[0] for path in tracked(root)}

    assert not names & {"runs", ".venv", "dist", "build"}


def test_constraints_name_no_address(root):
    assert "://" not in (root / "constraints.txt").read_text()


def test_every_dependency_has_its_reason(root):
    text = (root / "pyproject.toml").read_text().split("[tool.")[0]
    dependencies = [line for line in text.splitlines() if line.startswith('    "') and ">=" in line]

    assert dependencies
    assert [line for line in dependencies if "#" not in line] == []
