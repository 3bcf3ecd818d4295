"""The programs of a cluster: built from pinned Go modules, kept by the hash of what they are built from."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("KERNELSEARCH_CACHE", Path.home() / ".cache/kernelsearch")) / "cluster"
KUBERNETES = "v1.36.3"


@dataclass(frozen=True)
class Tool:
    """One program: the folder of its go.mod, the package, what the linker and the compiler are told."""

    name: str
    module: str
    package: str = "."
    flags: str = "-s -w"
    tags: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return HERE / "go" / self.module


def _kubernetes(name: str) -> Tool:
    version = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
    return Tool(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", f"-s -w {version}")


CONTROL_PLANE = tuple(map(_kubernetes, ("kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler")))
NODE = (
    *map(_kubernetes, ("kubelet", "kube-proxy")),
    Tool("coredns", "coredns"),
    Tool("pause", "pause"),
    Tool("fakegpu", "fakegpu"),
)
HELM = Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm")


def _prometheus(name: str) -> Tool:
    """Without the clouds' libraries, which are most of it, and without its web pages, which no Go module holds."""
    package = f"github.com/prometheus/prometheus/cmd/{name}"
    return Tool(name, "prometheus", package, tags=("remove_all_sd", "enable_kubernetes_sd"))


PROMETHEUS, PROMTOOL = _prometheus("prometheus"), _prometheus("promtool")
TOOLS = {tool.name: tool for tool in (*CONTROL_PLANE, *NODE, HELM, PROMETHEUS, PROMTOOL)}


class BuildError(Exception):
    """A program could not be built; the message ends with the compiler's last words."""


def path(tool: Tool) -> Path:
    """Where the program is, or will be once built."""
    sources = sorted(each for each in tool.folder.iterdir() if each.is_file())
    text = [tool.package, tool.flags, *tool.tags, _go_version(), *(each.name + each.read_text() for each in sources)]
    key = hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]
    return CACHE / f"{tool.name}-{key}" / tool.name


def find(tool: Tool) -> str | None:
    """One that is there: ours if built, else one installed. In CI it is built (minutes), so that nothing is skipped."""
    if shutil.which("go") and (os.environ.get("CI") or path(tool).exists()):
        return str(build(tool))
    return shutil.which(tool.name)


def program(tool: Tool) -> str:
    """One that is there, else built."""
    return find(tool) or str(build(tool))


def build(tool: Tool) -> Path:
    """The program, built if it is not there. Safe beside other processes that build the same."""
    done = path(tool)
    if done.exists():
        return done
    CACHE.mkdir(parents=True, exist_ok=True)
    with _lock(CACHE / f"{done.parent.name}.lock"):
        if not done.exists():
            _compile(tool, done)
    return done


def _compile(tool: Tool, done: Path) -> None:
    made = done.parent.with_name(done.parent.name + f".{os.getpid()}.tmp")
    made.mkdir(parents=True)
    command = ["go", "build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", tool.flags]
    command += ["-tags", ",".join(tool.tags)]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    try:
        run = subprocess.run(
            [*command, "-o", str(made / tool.name), tool.package],
            cwd=tool.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise BuildError(f"{tool.name} does not build:\n{run.stderr[-2000:]}")
        made.rename(done.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _go_version() -> str:
    return subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
