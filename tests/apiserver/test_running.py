"""The runner's side of a real API server, with a runner's own token: what it may write, and when it must stop."""

import asyncio
import gzip
import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from fakes import FakeModel, FakeVerifier, Recorder, coded, report
from fakes import search as searching
from kernelsearch.cli import cluster_ports
from kernelsearch.cli.local import MonotonicClock
from kernelsearch.controller import cluster, status
from kernelsearch.controller.builders import names, runner
from kernelsearch.controller.running import kept
from kernelsearch.controller.running.own import GoneError, OwnSearch
from kernelsearch.report import best
from kernelsearch.search import checkpoint, loop, seed
from kernelsearch.search.checkpoint import Checkpoint
from kernelsearch.search.facts import Reason
from kernelsearch.search.population import Population
from kernelsearch.search.ports import AttemptStarted

NAME = "quickstart"
CHECKPOINT = names.checkpoint(NAME)
ODD = "🚀 中 \x00 \x1b[31m \x7f \x85 \u2028 \u2029 \ufffe \uffff é \\ \" ' \t \r\n"
PATIENCE_S = 20.0


@pytest.fixture
def manifest(root):
    """Of a search that no operator touches."""
    found = yaml.safe_load((root / "examples/quickstart.yaml").read_text())
    found["spec"]["managedBy"] = "example.com/this-test"
    del found["spec"]["budget"]["targetSpeedup"]  # this test's verifier is generous
    return found


@pytest.fixture
async def search(server, namespace, manifest):
    """With what the operator makes for its runner: this test is the operator."""
    manifest["metadata"]["namespace"] = namespace.name
    made = await server.create(manifest)
    for right in (runner.account, runner.role, runner.binding):
        await server.create(orphan(right(made)))
    await server.create(checkpoint_map(made))
    await server.create(runner.config_map(made, names.best(NAME)))
    return made


def orphan(child):
    """It outlives its search, which a test may delete or make up."""
    del child["metadata"]["ownerReferences"]
    return child


@pytest.fixture
async def mine(control_plane, search, monkeypatch):
    """The API server as the runner's pod reaches it."""
    place = search["metadata"]["namespace"]
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig_of(place, names.runner(NAME))))
    async with cluster.connect() as connected:
        await until(lambda: allowed(connected, place))
        yield connected


async def allowed(connected, place):
    """The authorizer hears of a new role a moment after it was made."""
    try:
        return await connected.get(cluster.KERNEL_SEARCH, place, NAME)
    except cluster.ForbiddenError:
        return None


async def until(holds):
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.05)


def checkpoint_map(search):
    return orphan(runner.config_map(search, CHECKPOINT))


async def make_anew(server, search, **more):
    """The checkpoint's ConfigMap, deleted and made again as the operator does."""
    await server.delete(cluster.CONFIG_MAP, search["metadata"]["namespace"], CHECKPOINT)
    return await server.create({**checkpoint_map(search), **more})


@pytest.fixture
def by(mine, namespace, search):
    """The checkpoints of a pod."""

    def made(pod, uid=search["metadata"]["uid"]):
        return kept.Checkpoints(mine, namespace.name, NAME, uid, pod)

    return made


@pytest.fixture
def own(mine, namespace, search):
    return OwnSearch(mine, namespace.name, NAME, search["metadata"]["uid"])


# ---- the checkpoint ----


async def test_a_checkpoint_comes_back_as_it_was(by):
    state = {"sequence": 3, "source": ODD * 1000, "numbers": [0, -1, 1.5, 2**53], "none": None, "": {"deep": [[]]}}
    first = by("pod-1")
    assert await first.load() is None

    await first.save(state)

    assert await by("pod-2").load() == state


async def test_text_that_is_no_unicode_costs_its_character_and_not_the_checkpoint(by):
    await by("pod-1").save({"source": "a\ud800b"})

    assert await by("pod-2").load() == {"source": "a?b"}


async def test_a_save_names_its_pod_and_keeps_the_operators_marks(by, namespace):
    before = namespace.get("configmap", CHECKPOINT)["metadata"]

    await by("pod-1").save({"sequence": 1})

    after = namespace.get("configmap", CHECKPOINT)["metadata"]
    assert after["annotations"] == {**before["annotations"], kept.OWNER: "pod-1"}
    assert (after["labels"], after["uid"]) == (before["labels"], before["uid"])


async def test_who_was_replaced_ends_and_spoils_nothing(by):
    old, new = by("old"), by("new")
    await old.save({"sequence": 1})
    await new.load()
    await new.save({"sequence": 2})

    with pytest.raises(kept.FencedError, match="pod new has taken over"):
        await old.save({"sequence": 3})

    assert await by("later").load() == {"sequence": 2}


async def test_who_takes_over_while_the_old_one_still_saves_ends_and_loses_nothing(by):
    old, new = by("old"), by("new")
    await old.save({"sequence": 1})
    await new.load()
    await old.save({"sequence": 2})

    with pytest.raises(kept.FencedError, match="an earlier runner saved once more"):
        await new.save({"sequence": 1_000_000})

    assert await by("later").load() == {"sequence": 2}


async def test_of_two_that_begin_at_once_one_goes_on(by):
    both = [by("one"), by("two")]
    await asyncio.gather(*(each.load() for each in both))

    ended = await asyncio.gather(*(each.save({"by": n}) for n, each in enumerate(both)), return_exceptions=True)

    (winner,) = [n for n, each in enumerate(ended) if each is None]
    assert isinstance(ended[1 - winner], kept.FencedError)
    assert await by("later").load() == {"by": winner}


async def test_a_hand_on_the_checkpoint_is_no_take_over(by, namespace):
    store = by("pod-1")
    await store.save({"sequence": 1})
    namespace.kubectl("annotate", "configmap", CHECKPOINT, "example.com/seen=yes")

    await store.save({"sequence": 2})

    assert await by("pod-2").load() == {"sequence": 2}
    assert namespace.get("configmap", CHECKPOINT)["metadata"]["annotations"]["example.com/seen"] == "yes"


async def test_a_checkpoint_that_vanished_is_saved_again_once_it_is_there(by, server, search):
    store = by("pod-1")
    await store.save({"sequence": 1})
    await server.delete(cluster.CONFIG_MAP, search["metadata"]["namespace"], CHECKPOINT)
    saving = asyncio.create_task(store.save({"sequence": 2}))
    await asyncio.wait({saving}, timeout=kept.EVERY_S + 2 * kept.WAIT_S)
    assert not saving.done()

    await make_anew(server, search)
    await asyncio.wait_for(saving, PATIENCE_S)

    assert await by("pod-2").load() == {"sequence": 2}


async def test_the_checkpoint_of_an_earlier_search_is_never_adopted(by, server, search):
    earlier = {**search, "metadata": {**search["metadata"], "uid": "earlier"}}
    await make_anew(server, earlier)
    await by("old", "earlier").save({"sequence": 7})
    loading = asyncio.create_task(by("new").load())
    await asyncio.wait({loading}, timeout=3 * kept.WAIT_S)
    assert not loading.done()

    await make_anew(server, search)

    assert await asyncio.wait_for(loading, PATIENCE_S) is None


async def test_a_running_one_does_not_write_into_that_of_a_later_search(by, server, search):
    store = by("old")
    await store.save({"sequence": 1})
    await make_anew(server, {**search, "metadata": {**search["metadata"], "uid": "later"}})

    saving = asyncio.create_task(store.save({"sequence": 2}))
    await asyncio.wait({saving}, timeout=kept.EVERY_S + 3 * kept.WAIT_S)

    assert not saving.done()
    saving.cancel()
    assert await by("new", "later").load() is None


@pytest.mark.parametrize("data", [b"text", gzip.compress(b"{}")[:12], gzip.compress(b"{"), gzip.compress(b"[]")])
async def test_what_is_no_checkpoint_is_told_and_written_over(by, namespace, data):
    patch = json.dumps({"binaryData": {kept.KEY: b64encode(data).decode()}})
    namespace.kubectl("patch", "configmap", CHECKPOINT, "--type=merge", "-p", patch)
    store = by("pod-1")

    with pytest.raises(kept.UnreadableError, match=f"ConfigMap {CHECKPOINT} holds no checkpoint"):
        await store.load()
    await store.save({"sequence": 1})

    assert await by("pod-2").load() == {"sequence": 1}


async def test_the_best_kernel_is_kept_as_it_was_written(mine, namespace):
    await kept.keep_best(mine, namespace.name, NAME, {"kernel.py": f"# {ODD}", "report.json": "{}"})

    assert await kept.best_source(mine, namespace.name, NAME) == f"# {ODD}"
    assert namespace.get("configmap", names.best(NAME))["data"]["report.json"] == "{}"


@pytest.mark.parametrize("hand", ["deletes it", "writes into it"])
async def test_a_best_kernel_that_was_lost_is_kept_again(mine, own, server, search, namespace, hand):
    archive = cluster_ports.BestKept(mine, own, best.Origin(NAME, "import torch"))
    record = {"attempt": 1, "chain": 0, "step": "fresh", "source": f"# {ODD}", "language": "cpp"}
    await archive.keep_best(record)
    if hand == "deletes it":
        await server.delete(cluster.CONFIG_MAP, namespace.name, names.best(NAME))
        await server.create(runner.config_map(search, names.best(NAME)))
    else:
        namespace.kubectl("patch", "configmap", names.best(NAME), "--type=merge", "-p", '{"data": {"kernel.py": "x"}}')

    await archive.keep_best(record)

    assert await kept.best_source(mine, namespace.name, NAME) == f"# {ODD}"


async def test_a_best_kernel_that_is_there_is_not_written_again(mine, own, namespace):
    archive = cluster_ports.BestKept(mine, own, best.Origin(NAME, "import torch"))
    await archive.keep_best({"attempt": 1, "source": "one", "full": {"status": "correct"}})

    await archive.keep_best({"attempt": 1, "source": "one"})

    assert "correct" in namespace.get("configmap", names.best(NAME))["data"]["report.json"]


# ---- its own search ----


def facts(**more):
    return {"sequence": 1, "attempts": {"total": 2, "correct": 1}, **more}


def best_of(source):
    figures = {"speedup": "1.5", "microseconds": "10.0", "baseline": "eager", "foundAfterSeconds": 4}
    return {"attempt": 1, "language": "cpp", "sha256": "0" * 64, "source": source, "verifiedOn": "a CPU", **figures}


async def test_what_is_published_stands_beside_what_the_operator_wrote(own, server, search):
    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
    theirs = {"phase": "Running", "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    await own.read()
    await status.write(server, search, theirs)

    await own.publish(facts(best=best_of(ODD)))

    found = (await server.get(cluster.KERNEL_SEARCH, own.namespace, NAME))["status"]
    assert found["best"]["source"] == ODD
    assert found["best"]["sourceRef"] == {"name": names.best(NAME), "key": "kernel.py"}
    assert {key: found[key] for key in theirs} == theirs


async def test_what_is_published_no_more_is_gone(own):
    await own.read()
    await own.publish(facts(best=best_of("class ModelNew: ...")))

    await own.publish(
        {**facts(), "outcome": {"reason": "TargetReached", "message": "", "time": "2026-01-01T00:00:00Z"}}
    )

    assert "best" not in own.status
    assert own.status["outcome"]["reason"] == "TargetReached"


async def test_another_search_of_the_same_name_is_none_of_its_business(mine, namespace):
    stranger = OwnSearch(mine, namespace.name, NAME, "another")

    with pytest.raises(GoneError):
        await stranger.read()

    assert stranger.gone.is_set()


async def test_nothing_is_published_onto_a_search_that_was_made_anew(own, namespace, manifest, search):
    await own.read()
    namespace.kubectl("delete", "ksearch", NAME)
    namespace.apply(manifest)

    with pytest.raises(GoneError):
        await own.publish(facts())

    found = namespace.get("ksearch", NAME)
    assert found["metadata"]["uid"] != search["metadata"]["uid"]
    assert "status" not in found


async def test_two_that_publish_at_once_both_arrive(own, mine, server, search):
    rival = OwnSearch(mine, own.namespace, NAME, own.uid)
    await asyncio.gather(own.read(), rival.read())
    await status.write(server, search, {"phase": "Running"})

    await asyncio.gather(own.publish(facts()), rival.publish(facts(sequence=2)))

    found = (await server.get(cluster.KERNEL_SEARCH, own.namespace, NAME))["status"]
    assert found["phase"] == "Running"
    assert found["sequence"] in {1, 2}


async def test_a_change_of_the_spec_arrives_and_the_end_of_the_object_too(own, namespace):
    await own.read()
    following = asyncio.create_task(own.follow())
    progress = cluster_ports.Progress(own)

    patch = json.dumps({"spec": {"budget": {"deadlineSeconds": 30, "maxAttempts": 3}, "stop": True}})
    await asyncio.to_thread(namespace.kubectl, "patch", "ksearch", NAME, "--type=merge", "-p", patch)
    await asyncio.wait_for(own.until(lambda own: own.spec.get("stop")), PATIENCE_S)
    asked = progress.live()
    await asyncio.to_thread(namespace.kubectl, "delete", "ksearch", NAME)
    await asyncio.wait_for(following, PATIENCE_S)

    assert (asked.deadline, asked.max_attempts, asked.stop) == (30, 3, True)
    assert own.gone.is_set()


# ---- a search on it ----


def store_of(own, checkpoints):
    return cluster_ports.Store(checkpoints, own.uid, print)


async def play(own, store, seen, leave=lambda: False):
    """A real loop on this cluster; model and verifier are fakes. `leave`: when its pod is told to go."""
    clock, config = MonotonicClock(), searching(chains=2, uid=own.uid)
    clock.start()
    progress = cluster_ports.Progress(own)
    work = loop.run(
        config,
        proposer=FakeModel(lambda *_: coded(), seconds=0.1, clock=clock),
        verifier=FakeVerifier(judge, seconds=0.1, clock=clock),
        store=store,
        archive=cluster_ports.BestKept(own._server, own, best.Origin(NAME, config.problem.source)),
        progress=progress,
        clock=clock,
        observer=seen,
    )
    task = asyncio.create_task(work)

    async def over():
        return task.done() or leave()

    await until(over)
    progress.leave()
    return await task


def judge(candidate, _):
    return report("correct", ratio=1 + candidate.attempt % 1000 / 10)


async def test_a_search_whose_checkpoint_was_lost_goes_on_from_what_it_had_published(
    own, by, server, search, namespace
):
    seen = Recorder()
    patch = json.dumps({"spec": {"budget": {"maxAttempts": 6}}})
    namespace.kubectl("patch", "ksearch", NAME, "--type=merge", "-p", patch)
    await own.read()
    before = await play(own, store_of(own, by("one")), seen, lambda: own.status.get("best"))
    published = json.loads(json.dumps(own.status))
    await make_anew(server, search)

    whole = await kept.best_source(server, own.namespace, NAME)
    store = store_of(own, by("two"))
    store.seed = seed.from_status(own.status, searching().problem, own.uid, whole)
    after = await play(own, store, seen)

    assert before.reason is Reason.SUSPENDED
    assert after.reason is Reason.ATTEMPTS_EXHAUSTED
    assert own.status["attempts"]["total"] == 6
    assert own.status["sequence"] > published["sequence"]
    assert float(own.status["best"]["speedup"]) >= float(published["best"]["speedup"])
    started = [each.attempt for each in seen.of(AttemptStarted)]
    assert len(started) == len(set(started))
    assert await kept.best_source(server, own.namespace, NAME) == own.status["best"]["source"]


async def test_a_search_that_another_pod_took_over_ends(own, by):
    await own.read()
    playing = asyncio.create_task(play(own, store_of(own, by("old")), Recorder()))

    async def taken_over():
        new = by("new")
        try:
            await new.save(await new.load())
        except kept.FencedError:  # the old one saved in between
            return False
        return True

    await until(by("anybody").load)
    await until(taken_over)

    with pytest.raises(kept.FencedError, match="pod new has taken over"):
        await playing


def state(uid, **parts):
    """A checkpoint, as it is saved."""
    common = {"seconds": 1.0, "next_id": 3, "problem": searching().problem, "population": Population.of(1), "seed": 0}
    return checkpoint.to_mapping(Checkpoint(**common, prompt_version="1", uid=uid, **parts))


@pytest.mark.parametrize(("saved", "wins"), [(None, "seed"), (5_000_001, "saved"), (1, "seed")])
async def test_the_newer_of_checkpoint_and_status_is_taken(own, by, saved, wins):
    if saved is not None:
        await by("one").save(state(own.uid, sequence=saved, strategy="saved"))
    store = store_of(own, by("two"))
    store.seed = {"sequence": 3_000_002, "strategy": "seed"}

    assert (await store.load())["strategy"] == wins


@pytest.mark.parametrize(
    "broken",
    [{"schema": 2}, {"population": {"chains": "lost"}}, {"uid": "another"}],
    ids=["of a later version", "of another form", "of another search"],
)
async def test_a_search_whose_checkpoint_cannot_be_used_goes_on_from_what_it_had_published(own, by, namespace, broken):
    patch = json.dumps({"spec": {"budget": {"maxAttempts": 6}}})
    namespace.kubectl("patch", "ksearch", NAME, "--type=merge", "-p", patch)
    await own.read()
    await play(own, store_of(own, by("one")), Recorder(), lambda: own.status.get("best"))
    published = own.status
    stored = by("meddler")
    await stored.save({**await stored.load(), **broken})

    store = store_of(own, by("two"))
    assert await store.load() is None
    store.seed = seed.from_status(published, searching().problem, own.uid)
    outcome = await play(own, store, Recorder())

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert own.status["attempts"]["total"] == 6
    assert own.status["sequence"] > published["sequence"]


# ---- clocks ----


@pytest.mark.parametrize(("ahead", "said"), [(0, ""), (3600, "s ahead of the API server's"), (-60, "s behind the API")])
async def test_a_clock_that_is_not_the_api_servers_is_told(server, ahead, said):
    told = []

    await cluster_ports.compare_clocks(server, told.append, lambda: datetime.now(UTC) + timedelta(seconds=ahead))

    assert len(told) == bool(said)
    assert said in "".join(told)
