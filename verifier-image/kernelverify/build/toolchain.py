"""Where the compiler, torch's headers and Python's are: found without importing torch."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kernelverify.resources import HostError

STANDARD = "-std=c++20"
"""Torch's headers need it since 2.10."""

HEADERS = Path(__file__).parent / "headers"
"""Our own, lean: searched before torch's."""


class ToolchainError(HostError):
    """No compiler or no headers here: infrastructure, with the remedy."""


@dataclass(frozen=True)
class Toolchain:
    compiler: str
    torch: Path
    python: Path
    identity: str
    """Everything about the tools that decides a result."""

    @property
    def includes(self) -> tuple[str, ...]:
        folders = (self.torch / "include", self.torch / "include/torch/csrc/api/include", self.python)
        return tuple(flag for folder in folders for flag in ("-isystem", str(folder)))

    @property
    def libraries(self) -> tuple[str, ...]:
        return (f"-L{self.torch / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python")

    @property
    def reads(self) -> tuple[str, ...]:
        """Folders that a compiler needs to read, beside the system's."""
        return (str(HEADERS), str(self.torch / "include"), str(self.torch / "lib"), str(self.python))


@lru_cache(maxsize=1)
def find() -> Toolchain:
    compiler, python = shutil.which("g++"), Path(sysconfig.get_path("include"))
    if compiler is None or shutil.which("nm") is None:
        raise ToolchainError("no g++ or no nm on the path; install a C++ compiler (Debian: apt-get install g++)")
    if not (python / "Python.h").exists():
        raise ToolchainError(f"no Python.h in {python}; install Python's headers (Debian: apt-get install python3-dev)")
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ToolchainError("torch is not installed beside the verifier; install kernelsearch[verifier]")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    facts = [version, importlib.metadata.version("torch"), platform.machine(), platform.python_version(), _processor()]
    facts += [path.read_text() for path in sorted(HEADERS.rglob("*.h"))]
    return Toolchain(
        compiler=compiler,
        torch=Path(spec.origin).parent,
        python=python,
        identity=hashlib.sha256("\n".join(facts).encode()).hexdigest(),
    )


def _processor() -> str:
    """What -march=native depends on: a cache may be shared between machines."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith("flags")), "")
