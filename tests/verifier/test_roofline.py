"""What moving bytes takes at least: the best that was ever seen here, and looked at again before it condemns."""

import pytest

from kernelverify.host import roofline


@pytest.fixture
def speeds(monkeypatch):
    """Measured bandwidths in bytes per second, one after another."""
    monkeypatch.setattr(roofline, "PAUSE_S", 0)
    monkeypatch.setattr(roofline, "_best", {})

    def measured(*values):
        left = iter(values)
        monkeypatch.setattr(roofline, "_bandwidth", lambda _: next(left))

    return measured


def test_a_plausible_time_costs_one_measurement(speeds):
    speeds(1e9)

    assert roofline.floor_us(1 << 20, claimed_us=2000) == pytest.approx(1048.576)
    assert roofline.floor_us(1 << 20, claimed_us=2000) == pytest.approx(1048.576)


def test_a_first_measurement_in_a_busy_moment_condemns_nobody(speeds):
    speeds(1e8, 2e8, 1e9)

    assert roofline.floor_us(1 << 20, claimed_us=2000) == pytest.approx(1048.576)


def test_what_no_measurement_reaches_stays_impossible(speeds):
    speeds(1e9, 9e8, 1e9, 8e8, 1e9, 7e8)

    assert roofline.floor_us(1 << 20, claimed_us=1) == pytest.approx(1048.576)
