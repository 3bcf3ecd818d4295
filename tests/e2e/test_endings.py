"""The ways a search ends, all at once in one namespace: each says why, and keeps what it found."""

import pytest
from steady import script, search

from watching import complete, condition

pytestmark = pytest.mark.timeout(900)
NO_SUCH_IMAGE = "localhost/no-such-image:1"


def budget(**changes):
    return {"deadlineSeconds": 240, "gracePeriodSeconds": 10, **changes}


@pytest.fixture
def begun(place, root):
    """One search of each kind, under its name."""
    searches = {
        "attempts": {"budget": budget(maxAttempts=8)},
        "tokens": {"budget": budget(maxTokens=15000)},
        "stopped": {"budget": budget()},
        "no-image": {
            "budget": budget(startupDeadlineSeconds=30),
            "verifiers": {"serve": {"device": "cpu", "image": NO_SUCH_IMAGE}},
        },
        "no-gpu": {
            "budget": budget(startupDeadlineSeconds=30),
            "verifiers": {"serve": {"device": "cuda", "gpu": {"count": 16}}},
        },
    }
    place.apply(script(), *(search(root, name, **spec) for name, spec in searches.items()))
    return place


def test_each_ending_has_its_reason(begun):
    def reason(name):
        found = begun.wait(name, complete, 400)
        return condition(found, "Complete")["reason"], condition(found, "Solved")["status"], found

    begun.wait("stopped", lambda found: found.get("status", {}).get("best"), 300)
    begun.kubectl("patch", "ksearch", "stopped", "--type=merge", "-p", '{"spec": {"stop": true}}')

    why, solved, stopped = reason("stopped")
    assert (why, solved) == ("Cancelled", "True")
    assert "class ModelNew" in stopped["status"]["best"]["source"]
    why, _, attempts = reason("attempts")
    assert why == "AttemptsExhausted"
    assert attempts["status"]["attempts"]["total"] == 8
    why, _, tokens = reason("tokens")
    assert why == "BudgetExhausted"
    assert tokens["status"]["tokens"]["completion"] + tokens["status"]["tokens"]["prompt"] >= 15_000
    for name, clue in (("no-image", NO_SUCH_IMAGE), ("no-gpu", "Insufficient nvidia.com/gpu")):
        why, solved, found = reason(name)
        assert (why, solved) == ("StartupDeadlineExceeded", "False")
        assert clue in str(found["status"]["conditions"]), found["status"]["conditions"]
