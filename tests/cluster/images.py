"""The system's images, built from this checkout by the Dockerfiles that users build, on a local base.

No image registry is needed: the base is a debootstrap tree. Archives are kept by the hash of everything that goes in.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster import packages
from cluster.tools import CACHE

ROOT = Path(__file__).parents[2]
FOLDER = CACHE.parent / "images"
SUITE = "bookworm"
BASE = "localhost/base:test"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
IN_BASE = "python3,python3-pip,ca-certificates"
PRIVATE = """
mount -t tmpfs run /run && mount -t tmpfs varlib /var/lib && mkdir -p /var/lib/containers /run/net.d
printf '[network]\\nnetwork_config_dir="/run/net.d"\\n' > /run/containers.conf
export CONTAINERS_CONF=/run/containers.conf BUILDAH_ISOLATION=chroot STORAGE_DRIVER=overlay
exec "$@"
"""
"""buildah writes outside its root: it gets a mount namespace of its own."""


class ImageError(Exception):
    """An image could not be built; the message ends with the builder's last words."""


@dataclass(frozen=True)
class Image:
    """One Dockerfile of ours, and what its build sees."""

    name: str
    dockerfile: str
    context: tuple[tuple[str, str], ...]
    """Path in the repository, and in the build."""
    arguments: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        return f"localhost/{self.name}:test"


PROJECT = (("pyproject.toml", "pyproject.toml"), ("constraints.txt", "constraints.txt"))
TEXTS = (("README.md", "README.md"), ("LICENSE", "LICENSE"))
OPERATOR = Image(
    "kernelsearch",
    "Dockerfile",
    (
        *PROJECT,
        *TEXTS,
        ("operator", "operator"),
        ("verifier-image/kernelverify", "verifier-image/kernelverify"),
        ("verifier-image/kernelverify_api", "verifier-image/kernelverify_api"),
        ("examples/replay", "examples/replay"),
    ),
)
VERIFIER = Image(
    "kernelverify",
    "verifier-image/Dockerfile",
    (
        *PROJECT,
        *TEXTS,
        ("verifier-image/kernelverify", "verifier-image/kernelverify"),
        ("verifier-image/kernelverify_api", "verifier-image/kernelverify_api"),
    ),
    ("TORCH=none",),
)


def build(image: Image) -> Path:
    """A docker archive of the image, built if it is not there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    done = FOLDER / f"{image.name}-{_key(image)}.tar"
    if done.exists():
        return done
    packages.install(packages.NODE)
    with (FOLDER / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not done.exists():
            _build(image, done)
    return done


def _build(image: Image, done: Path) -> None:
    _base()
    context = FOLDER / f"context.{os.getpid()}"
    shutil.rmtree(context, ignore_errors=True)
    try:
        for source, target in image.context:
            _copy(ROOT / source, context / target)
        shutil.copy(ROOT / image.dockerfile, context / "Dockerfile")
        arguments = [f"--build-arg={each}" for each in (f"BASE_IMAGE={BASE}", *image.arguments)]
        trust = ["-v", f"{AUTHORITIES}:{AUTHORITIES}:ro"] if Path(AUTHORITIES).exists() else []
        common = ["--isolation=chroot", "--network=host", "--pull=never", "--layers=false", *trust, *arguments]
        _buildah("build", *common, "-t", image.reference, str(context))
        fresh = done.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        _buildah("push", "--disable-compression", image.reference, f"docker-archive:{fresh}:{image.reference}")
        _buildah("rmi", "--prune")  # the one before has lost its name to this one
        _forget_older(image)
        fresh.rename(done)
    finally:
        shutil.rmtree(context, ignore_errors=True)


def _base() -> None:
    """The base image in buildah's store, made once."""
    if (FOLDER / f"base-{SUITE}").exists():
        return
    tree = FOLDER / f"tree-{SUITE}"
    shutil.rmtree(tree, ignore_errors=True)
    _run(["debootstrap", "--variant=minbase", f"--include={IN_BASE}", SUITE, str(tree)])
    _slim(tree)
    container = _buildah("from", "scratch").strip()
    _buildah("add", "-q", container, str(tree), "/")
    settings = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PIP_BREAK_SYSTEM_PACKAGES=1"]
    _buildah("config", *(f"--env={each}" for each in (*settings, "LANG=C.UTF-8")), container)
    _buildah("commit", "-q", "--rm", container, BASE)
    shutil.rmtree(tree)
    (FOLDER / f"base-{SUITE}").touch()


def _slim(tree: Path) -> None:
    (tree / "usr/bin/python").symlink_to("python3")
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / folder).mkdir(parents=True)


def _buildah(*arguments: str) -> str:
    store = ["--root", str(FOLDER / "store"), "--runroot", str(FOLDER / "store.run")]
    command, *rest = arguments
    return _run(["unshare", "-m", "bash", "-c", PRIVATE, "-", "buildah", *store, command, *rest])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command[-6:])}:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    return done.stdout


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _key(image: Image) -> str:
    digest = hashlib.sha256(repr((SUITE, IN_BASE, image.arguments)).encode())
    for source in (image.dockerfile, *(each for each, _ in image.context)):
        for file in _files(ROOT / source):
            digest.update(str(file.relative_to(ROOT)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)


def _forget_older(image: Image) -> None:
    for old in FOLDER.glob(f"{image.name}-*.tar"):
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
