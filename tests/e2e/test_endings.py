"""The ways a search ends: each says why, and keeps what it found."""

import pytest
from steady import script, search

from watching import complete, condition

pytestmark = pytest.mark.timeout(900)
NO_SUCH_IMAGE = "localhost/no-such-image:1"


def budget(**changes):
    return {"deadlineSeconds": 240, "gracePeriodSeconds": 10, **changes}


def ended(place, name):
    """Reason, message, whether solved, and the status."""
    found = place.wait(name, complete, 400)
    told = condition(found, "Complete")
    return told["reason"], told["message"], condition(found, "Solved")["status"], found["status"]


def test_budgets_and_a_stop_end_it_with_their_reason(place, root):
    budgets = {"attempts": budget(maxAttempts=8), "tokens": budget(maxTokens=15_000), "stopped": budget()}
    place.apply(script(), *(search(root, name, budget=each) for name, each in budgets.items()))
    place.wait("stopped", lambda found: found.get("status", {}).get("best"), 300)
    place.kubectl("patch", "ksearch", "stopped", "--type=merge", "-p", '{"spec": {"stop": true}}')

    reason, _, solved, status = ended(place, "stopped")
    assert (reason, solved) == ("Cancelled", "True")
    assert "class ModelNew" in status["best"]["source"]
    reason, _, _, status = ended(place, "attempts")
    assert reason == "AttemptsExhausted"
    assert status["attempts"]["total"] == 8
    reason, _, _, status = ended(place, "tokens")
    assert reason == "BudgetExhausted"
    assert status["tokens"]["completion"] + status["tokens"]["prompt"] >= 15_000


@pytest.mark.parametrize(
    ("verifiers", "clue"),
    [
        ({"device": "cpu", "image": NO_SUCH_IMAGE}, NO_SUCH_IMAGE),
        ({"device": "cuda", "gpu": {"count": 16}}, "Insufficient nvidia.com/gpu"),
    ],
    ids=["image", "gpu"],
)
def test_what_cannot_start_says_why(place, root, verifiers, clue):
    place.apply(script(), search(root, verifiers={"serve": verifiers}, budget=budget(startupDeadlineSeconds=40)))

    reason, message, solved, _ = ended(place, "steady")

    assert (reason, solved) == ("StartupDeadlineExceeded", "False")
    assert clue in message
