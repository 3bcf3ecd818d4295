"""What a verifier reads from its environment: what is wrong there is told with name, value and remedy."""

from pathlib import Path

import pytest

from kernelverify import settings
from kernelverify.settings import SettingsError


def _read(**values: str) -> settings.Settings:
    return settings.read({f"KERNELVERIFY_{name}": value for name, value in values.items()})


def test_what_is_left_out_has_its_default(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")

    found = _read()

    assert found == settings.Settings(cache=Path("/home/somebody/.cache/kernelsearch/build"))
    assert found.lane_threads >= 1


def test_zero_threads_are_all_cores():
    assert _read(THREADS="0").lane_threads >= 1
    assert _read(THREADS="3").lane_threads == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("QUEUE", "abc"), ("QUEUE", "0"), ("QUEUE", "-1"), ("QUEUE", ""), ("QUEUE", "1e3"), ("QUEUE", "9" * 5000)),
        *(("THREADS", "-1"), ("THREADS", "100000"), ("THREADS", "1.5"), ("THREADS", "\u00b2")),
        *(("BUILD_WORKERS", "-2"), ("BUILD_WORKERS", "1000"), ("BUILD_WORKERS", " 2")),
    ],
)
def test_a_number_out_of_range_is_told_with_its_range(name, value):
    with pytest.raises(
        SettingsError, match=f"^KERNELVERIFY_{name} is .*; write a whole number from [01] to [0-9]+"
    ) as caught:
        _read(**{name: value})

    assert len(str(caught.value)) < 200


def test_an_empty_cache_folder_is_not_the_present_one():
    with pytest.raises(SettingsError, match="KERNELVERIFY_CACHE is empty"):
        _read(CACHE="")


def test_a_home_that_is_not_there_is_told():
    with pytest.raises(SettingsError, match=r"KERNELVERIFY_CACHE is '~nobody-of-that-name/x'.*write the path"):
        _read(CACHE="~nobody-of-that-name/x")


def test_a_relative_cache_is_made_absolute():
    """Candidates and compilers, which read it, work in other folders."""
    assert _read(CACHE="builds").cache == Path.cwd() / "builds"
