"""`kernelsearch run` as a whole: a replay, a verifier over real HTTP with verdicts as told, results in a folder."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from fake_verifier import FakeVerifier, refusal, running
from fakes import report
from kernelsearch.cli import commands, ending, preparation
from kernelsearch.cli.folder import seconds_kept
from kernelsearch.search import archive
from kernelsearch.search.budget import LiveSpec
from kernelsearch.search.checkpoint import Checkpoint
from kernelsearch.search.facts import Outcome, Reason
from kernelsearch.search.population import Population
from kernelverify_api.report import AuditReport, Finding
from kernelverify_api.request import Problem
from kernelverify_api.service import AuditState

MANIFEST = """\
apiVersion: kernelsearch.dev/v1alpha1
kind: KernelSearch
metadata: {name: relu}
spec:
  problem: {inline: {reference: "import torch\\n\\n\\nclass Model(torch.nn.Module): ...\\n"}}
  kernel: {languages: [cpp]}
  model: {name: some-model, endpoint: {url: "http://127.0.0.1:9/v1"}}
  verifiers: {serve: {device: cpu}}
  search: {chains: 2}
  budget: {deadlineSeconds: 120, maxAttempts: 4, gracePeriodSeconds: 2}
"""
SCRIPT = """\
schema: 1
model: small
pace: {tokensPerSecond: 100000, firstTokenSeconds: 0.01}
answers:
  none: {content: I think.}
  code:
    thought: Well.
    content: "```python\\nimport torch\\n\\n\\nclass ModelNew(torch.nn.Module):\\n    pass\\n```"
rules: [{name: all, answers: [none, code], then: cycle}]
fallback: code
"""


class Judge(FakeVerifier):
    """Also says what an audit finds."""

    found: AuditReport | web.Response | None = None
    audits = 0

    async def _audit(self, request: web.Request) -> web.Response:
        self.audits += 1
        if isinstance(self.found, web.Response):
            return self.found
        if self.found is None:
            return await super()._audit(request)
        return web.json_response(text=AuditState(report=self.found).model_dump_json(by_alias=True))


@contextmanager
def serving(judge: FakeVerifier) -> Iterator[str]:
    """Serve it from a thread, since a run has an event loop of its own."""
    loop = asyncio.new_event_loop()
    over, ready, urls = asyncio.Event(), threading.Event(), []

    async def serve() -> None:
        async with running(judge) as found:
            urls.extend(found)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)
        loop.close()


@pytest.fixture
def judge() -> Iterator[Judge]:
    """Finds every kernel right and 1.5 times as fast."""
    made = Judge(judge=lambda asked: report("correct", ratio=1.5, level=asked.options.level))
    with serving(made):
        yield made


class Run:
    """A folder with a manifest and a script, and the command over it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.out, self.url = folder, folder / "out", url
        self.write(MANIFEST)
        (folder / "replay.yaml").write_text(SCRIPT)

    def write(self, text: str) -> None:
        (self.folder / "search.yaml").write_text(text)

    def options(self, *more: str, replay: bool = True) -> list[str]:
        asked = ["run", "-f", str(self.folder / "search.yaml"), "--out", str(self.out), "--verifier-url", self.url]
        return [*asked, *(["--replay", str(self.folder / "replay.yaml")] if replay else []), *more]

    def __call__(self, *more: str, replay: bool = True) -> int:
        with pytest.raises(SystemExit) as caught:
            commands.main(self.options(*more, replay=replay))
        return int(caught.value.code or 0)

    def numbers(self) -> list[int]:
        return [record["attempt"] for record in archive.read(self.out / "attempts")]

    def status(self) -> dict:
        return json.loads((self.out / "status.json").read_text())


@pytest.fixture
def run(tmp_path, judge) -> Run:
    return Run(tmp_path, judge.url)


def test_a_search_ends_with_its_results_in_its_folder(run, capsys):
    assert run() == 0

    out = capsys.readouterr().out
    assert {path.name for path in run.out.iterdir()} >= {
        *("search.yaml", "journal.jsonl", "attempts", "status.json", "best", "report.html", "audit.json"),
    }
    assert "class ModelNew" in (run.out / "best/kernel.py").read_text()
    assert (run.out / "search.yaml").read_text() == MANIFEST
    assert len(run.numbers()) == 4
    assert "ended, AttemptsExhausted" in out
    assert "best: attempt" in out
    assert "best/kernel.py" in out


def test_a_replay_is_called_one_everywhere(run, capsys):
    run()

    assert "answers by replay:small (a replay of written answers, no language model)" in capsys.readouterr().out
    assert "no language model was asked" in (run.out / "report.html").read_text()
    assert "a replay of written answers" in (run.out / "best/REPRODUCE.md").read_text()


def test_a_finished_search_says_so_and_how_to_start_anew(run, capsys):
    run()
    before = run.numbers()
    capsys.readouterr()

    assert run() == 0

    assert "this search is finished (4 of 4 attempts are made); give --fresh to start anew" in capsys.readouterr().out
    assert run.numbers() == before


def test_a_limit_that_was_raised_lets_it_go_on_where_it_was(run, judge):
    run()
    run.write(MANIFEST.replace("maxAttempts: 4", "maxAttempts: 6"))

    assert run() == 0

    assert run.status()["attempts"]["total"] == 6
    assert len(set(run.numbers())) == len(run.numbers()) == 6
    assert judge.audits == 1


def test_fresh_starts_anew_and_keeps_what_was(run):
    run()

    assert run("--fresh") == 0

    assert len(run.numbers()) == 4
    assert len(list(archive.read(run.out / "earlier/1/attempts"))) == 4


def test_another_problem_in_the_same_folder_is_refused(run, capsys):
    run()
    run.write(MANIFEST.replace("import torch", "import torch  # other"))

    assert run() == 2
    assert "a search of another problem" in capsys.readouterr().err
    assert run("--fresh") == 0


def test_a_folder_in_use_is_refused(run, capsys):
    from kernelsearch.cli.folder import Folder

    with Folder(run.out):
        assert run() == 2

    assert "runs the search in" in capsys.readouterr().err


def test_no_correct_kernel_is_exit_code_1(run, judge, capsys):
    judge.judge = lambda asked: report("incorrect", level=asked.options.level)

    assert run() == 1

    out = capsys.readouterr().out
    assert "NoCorrectKernel" in out
    assert "best: no correct kernel" in out
    assert "best/kernel.py" not in out
    assert not (run.out / "best").exists()


def test_a_problem_that_cannot_be_read_is_exit_code_2_and_names_its_line(run, judge, capsys):
    judge.found = refusal(422, "Model is missing; define class Model", "problem.source:3")

    assert run() == 2

    err = capsys.readouterr().err
    assert "search.yaml: spec.problem: line 3 of the reference: Model is missing; define class Model" in err


def test_an_unsound_problem_is_told_recorded_and_searched_all_the_same(run, judge, capsys):
    finding = Finding(kind="zeros", criterion="ours", evidence="all zeros pass")
    judge.found = AuditReport(problem="relu", sound=False, findings=(finding,))

    assert run() == 0

    assert "UNSOUND PROBLEM: all zeros pass" in capsys.readouterr().out
    assert run.status()["problem"]["degenerate"]["finding"] == "zeros"
    assert "Unsound problem" in (run.out / "report.html").read_text()


def test_a_model_server_that_is_not_there_is_exit_code_3(run, monkeypatch, capsys):
    monkeypatch.setattr(preparation, "MODEL_SECONDS", 0.0)

    assert run(replay=False) == 3
    assert "the model server http://127.0.0.1:9/v1 failed" in capsys.readouterr().err


def test_a_verifier_that_is_not_there_is_exit_code_3(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preparation, "VERIFIER_SECONDS", 0.2)

    assert Run(tmp_path, "http://127.0.0.1:9")() == 3
    assert "no verifier could be used in time" in capsys.readouterr().err


def test_languages_that_the_verifier_lacks_are_exit_code_2(run, capsys):
    run.write(MANIFEST.replace("[cpp]", "[cuda]"))

    assert run() == 2
    assert "spec.kernel.languages: is [cuda]; the verifier judges" in capsys.readouterr().err


def test_json_is_one_event_a_line_and_the_result_is_the_last(run, capsys):
    assert run("--json") == 0

    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [each["event"] for each in events]
    assert names[-2:] == ["ended", "result"]
    assert names.count("attempt_finished") == 4
    assert (events[-1]["exitCode"], events[-1]["replay"]) == (0, True)
    assert events[-1]["status"]["best"]["speedup"] == "1.5"


def test_a_best_folder_that_a_kill_left_behind_is_made_good(run):
    run()
    (run.out / "best/kernel.py").write_text("torn")

    run()

    assert "class ModelNew" in (run.out / "best/kernel.py").read_text()


def test_a_deadline_of_ones_own_ends_it(run, judge):
    judge.judge = lambda asked: report("incorrect", level=asked.options.level)
    run.write(MANIFEST.replace("maxAttempts: 4, ", ""))

    assert run("--deadline", "1") == 1
    assert "the deadline of 1 s was reached" in run.status()["outcome"]["message"]


def test_on_a_terminal_it_is_shown_live_and_the_terminal_is_left_in_order(run):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "kernelsearch.cli", *run.options()]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = everything(ours)
    os.close(ours)

    assert process.returncode == 0, shown
    for part in ("to the deadline", "best so far", "relu · replay:small (a replay of written answers", "verdicts: "):
        assert part in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0


def everything(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says EIO once nobody holds the other side
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


# ---- signals ----


@contextmanager
def started(run: Run, *more: str) -> Iterator[subprocess.Popen]:
    """As under `nohup`."""
    command = ["nohup", sys.executable, "-m", "kernelsearch.cli", *run.options("--json", *more)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def hear(process: subprocess.Popen, event: str) -> None:
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return
    raise AssertionError(f"no {event}: {process.stderr.read()}")


@pytest.fixture
def endless(run) -> Run:
    run.write(MANIFEST.replace("maxAttempts: 4, ", ""))
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_it_with_what_was_found(endless, number):
    with started(endless) as process:
        hear(process, "best_improved")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=120)

    assert process.returncode == 0
    assert json.loads(rest.splitlines()[-1])["status"]["outcome"]["reason"] == "Cancelled"
    assert (endless.out / "report.html").exists()


def test_a_search_that_was_ended_so_goes_on(endless):
    with started(endless) as process:
        hear(process, "best_improved")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    before = endless.numbers()

    with started(endless) as process:
        hear(process, "attempt_finished")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)

    assert len(endless.numbers()) > len(before)
    assert len(set(endless.numbers())) == len(endless.numbers())


def test_the_second_signal_ends_it_at_once(endless, judge):
    judge.seconds = 100.0
    with started(endless) as process:
        hear(process, "verifying")
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)

    # by the signal itself where the first had already ended the search when the second came
    assert process.returncode in {1, 130, -signal.SIGINT}


def test_ctrl_c_ends_a_search_whose_status_cannot_be_written(endless):
    with started(endless) as process:
        hear(process, "best_improved")
        (endless.out / ".status.json.new").mkdir()  # as a full disk, which root may not run into
        hear(process, "trouble")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)

    end = next(each for each in map(json.loads, rest.splitlines()) if each["event"] == "ended")
    assert (process.returncode, end["reason"]) == (0, "Cancelled")
    assert end["seconds"] < 100


def test_a_kill_during_an_answer_does_not_give_its_time_back(run):
    (run.folder / "replay.yaml").write_text(SCRIPT.replace("firstTokenSeconds: 0.01", "firstTokenSeconds: 3600"))
    with started(run) as process:
        hear(process, "attempt_started")
        deadline = time.monotonic() + 60
        while seconds_kept(run.out / "clock") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()

    with started(run) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "started":
                break

    assert event["seconds"] >= 2


def test_a_signal_that_a_parent_ignored_stays_ignored(run):
    with started(run) as process:
        hear(process, "started")
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=120)

    assert process.returncode == 0
    assert run.status()["outcome"]["reason"] == "AttemptsExhausted"


def test_a_reader_that_leaves_does_not_end_the_search(run):
    with started(run) as process:
        process.stdout.close()
        process.wait(timeout=120)
        said = process.stderr.read()

    assert process.returncode == 0, said
    assert len(run.numbers()) == 4


# ---- how it is over ----


def state(reason: Reason | None, *, seconds: float = 10.0) -> Checkpoint:
    outcome = Outcome(reason, "as told", seconds) if reason else None
    return Checkpoint(1, seconds, 1, Problem(source="x"), Population.of(1), "BestOfN", 0, "1", outcome=outcome)


@pytest.mark.parametrize(
    ("reason", "goes_on"),
    [
        (None, True),
        (Reason.CANCELLED, True),
        (Reason.MODEL_UNAVAILABLE, True),
        (Reason.VERIFIERS_UNAVAILABLE, True),
        (Reason.PROBLEM_UNSOLVABLE, False),
        (Reason.TARGET_REACHED, False),
    ],
)
def test_what_was_interrupted_goes_on_and_what_is_decided_does_not(reason, goes_on):
    assert (ending.over(state(reason), LiveSpec(deadline=60.0)) == "") is goes_on


@pytest.mark.parametrize(("deadline", "goes_on"), [(10.0, False), (20.0, True)])
def test_a_deadline_that_was_moved_lets_it_go_on(deadline, goes_on):
    assert (ending.over(state(Reason.NO_CORRECT_KERNEL), LiveSpec(deadline=deadline)) == "") is goes_on


@pytest.mark.parametrize(
    ("reason", "found", "code"),
    [
        (Reason.DEADLINE_REACHED, True, 0),
        (Reason.MODEL_UNAVAILABLE, True, 0),
        (Reason.NO_CORRECT_KERNEL, False, 1),
        (Reason.CANCELLED, False, 1),
        (Reason.PROBLEM_UNSOLVABLE, False, 2),
        (Reason.MODEL_UNAVAILABLE, False, 3),
        (Reason.VERIFIERS_UNAVAILABLE, False, 3),
    ],
)
def test_the_exit_code_says_how_it_went(reason, found, code):
    assert ending.exit_code(Outcome(reason, "", 1.0), found=found) == code


@pytest.fixture
def guarded(tmp_path) -> Iterator[str]:
    """A replay that answers only those who have the key."""
    script = tmp_path / "guarded.yaml"
    script.write_text(SCRIPT.replace("model: small", "model: deepseek-reasoner"))
    command = [sys.executable, "-m", "kernelsearch.cli", "replay-model", "--script", str(script), "--port", "0"]
    with subprocess.Popen([*command, "--api-key", "sk-example"], stdout=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://[\d.:]+", server.stdout.readline())[0] + "/v1"
        server.terminate()


@pytest.mark.parametrize(("key", "code"), [("sk-example", 0), ("sk-other", 3)])
def test_the_endpoint_example_asks_with_the_key_of_its_environment(run, root, guarded, monkeypatch, key, code):
    monkeypatch.setenv("KERNELSEARCH_SECRET_DEEPSEEK_API_KEY", key)
    example = (root / "examples/endpoint.yaml").read_text()
    example = example.replace("https://api.deepseek.com/v1", guarded)
    run.write(example.replace("maxTokens: 400000", "maxAttempts: 4"))

    assert run(replay=False) == code
