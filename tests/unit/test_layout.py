"""The shape of the repository: traps avoided, versions agree, every module says what it is for."""

import ast
import tomllib

import kernelsearch
import kernelverify


def test_operator_is_a_folder_and_never_a_package(root):
    # `operator/__init__.py` would shadow the standard library's operator, which `collections` imports
    assert not (root / "operator/__init__.py").exists()
    assert not (root / "tests/operator/__init__.py").exists()


def test_versions_agree(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    assert {project["version"]} == {kernelsearch.__version__, kernelverify.__version__}


def test_every_module_starts_with_a_docstring(root):
    modules = [p for top in ("operator", "verifier-image") for p in (root / top).rglob("*.py")]

    assert [str(p) for p in modules if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_constraints_name_no_address(root):
    assert "://" not in (root / "constraints.txt").read_text()


def test_every_dependency_has_its_reason(root):
    lines = (root / "pyproject.toml").read_text().split("[tool.")[0].splitlines()
    dependencies = [line for line in lines if line.startswith('    "') and ">=" in line]

    assert dependencies
    assert [line for line in dependencies if "#" not in line] == []
