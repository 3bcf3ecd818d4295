"""The tools that keep the code honest run as tests: lint, format, types, and who may import whom."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy"],
    "import rules": ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
}


@pytest.mark.timeout(1500)  # mypy without its cache, beside the API server's tier
@pytest.mark.parametrize("check", CHECKS)
def test_the_tree_passes(check, root: Path):
    done = subprocess.run([sys.executable, *CHECKS[check]], cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
