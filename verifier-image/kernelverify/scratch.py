"""A lane's folder for candidates' files, and the end of what killed verifiers left behind, half-built libraries too."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PREFIX = "kernelverify-"


def make() -> Path:
    """A new folder, whose name says which process it belongs to. Folders of processes that are gone are removed."""
    place = Path(tempfile.gettempdir())
    for old in place.glob(f"{PREFIX}*"):
        if _left_behind(old):
            remove(old)
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place))
    made.chmod(0o755)
    return made


def remove(folder: Path) -> None:
    """Whatever a candidate made of it, and however deep: Python's own way down is a recursion."""
    if os.geteuid() != 0:  # root needs no key, and must not be led to others' files
        _unlock(folder)
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        subprocess.run(["/bin/rm", "-rf", "--", str(folder)], check=False, stderr=subprocess.DEVNULL)


def _unlock(folder: Path) -> None:
    """A folder that nobody may read, made by a candidate with our own user id, would stay for ever with all in it."""
    places = [str(folder)]
    while places:
        place = places.pop()
        try:
            os.chmod(place, 0o700)  # noqa: PTH101 - a folder, not a link: nothing else is looked into
            with os.scandir(place) as entries:
                places += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
        except OSError:  # gone, somebody else's, or too deep for a path
            continue


def _left_behind(folder: Path) -> bool:
    """Ours, and of a process that is gone."""
    owner = folder.name.removeprefix(PREFIX).partition("-")[0]
    try:
        mine = folder.lstat().st_uid == os.geteuid() and not folder.is_symlink()
    except OSError:
        return False
    return mine and owner.isdigit() and not Path(f"/proc/{owner}").exists()
