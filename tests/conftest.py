"""Skips are honest: a test names what it needs, and in CI a need that the machine meets may not be skipped."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cluster.places import GIVEN

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile(
    "kernelsearch",
    parent=settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kernelsearch")


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "linux": (lambda: sys.platform == "linux", "needs Linux: the sandbox is Landlock and seccomp"),
    "root": (lambda: os.geteuid() == 0, "needs root: candidates get user ids, clusters namespaces of their own"),
    "no_root": (lambda: os.geteuid() != 0, "needs to run without root"),
    "go": (lambda: shutil.which("go") is not None, "needs Go: the cluster's programs are built from modules"),
    "gpu": (_has_gpu, "needs an NVIDIA GPU"),
    "own_cluster": (lambda: not os.environ.get(GIVEN), f"needs a cluster of its own, and {GIVEN} names another one"),
}
"""By marker argument: how to see whether the need is met, and the reason that a skip shows."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it leaves in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(*names): what the machine must offer: " + ", ".join(NEEDS))
    config.addinivalue_line("markers", "quiet: compares times; nothing else may run beside it (tests/all)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tiers with a cluster need what a cluster needs, unless one is given."""
    for item in items:
        if {"apiserver", "e2e"} & set(item.path.parts) and not os.environ.get(GIVEN):
            item.add_marker(pytest.mark.needs("linux", "root", "go"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            met, reason = NEEDS[name]
            if not met():
                pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None:
        known = tuple(reason for _, reason in NEEDS.values())
        unexcused = [r for r in reporter.stats.get("skipped", []) if not str(r.longrepr[2]).endswith(known)]
        if unexcused and session.exitstatus == pytest.ExitCode.OK:
            reporter.write_line(f"CI: {len(unexcused)} test(s) skipped although this machine could run them", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's top folder."""
    return ROOT
