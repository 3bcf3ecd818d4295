"""A report on a search: complete, honest about replays, readable when half is missing, inert whatever a model wrote."""

import asyncio
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernelsearch.cli import main
from kernelsearch.report import best, curve, history, page, table
from kernelsearch.search.archive import Parts
from kernelsearch.search.ports import InfrastructureError

EVIL = (
    "<script>alert(1)</script></pre></details><img src=x onerror=alert(2)>{{ 7*7 }}{% raw %}"
    "' onmouseover='alert(3) \"><svg/onload=alert(4)> <!-- &#60;script&#62; \x1b[31mred\x00 \u202egnp"
)
TIMING = {
    "speedup": {"vs": "eager", "ratio": 1.5, "ci99": [1.4, 1.6], "pairs": 60, "verdict": "faster"},
    "baselines": {"eager": 10.0, "compile": 12.0},
}
REPORT = {"schema": 1, "status": "correct", "level": "champion", "timing": TIMING, "environment": {"device": "a CPU"}}


def record(number: int, **more) -> dict:
    return {
        "schema": 1,
        "attempt": number,
        "chain": number % 2,
        "step": "fresh",
        "base": None,
        "idea": "",
        "promptVersion": "1-abc",
        "prompt": f"prompt {number}",
        "answer": {"content": "here", "reasoning": "hmm", "model": "some-model", "tokens": {"completion": 70}},
        "source": None,
        "language": None,
        "verdict": "no_code",
        "reason": "no code block",
        "speedup": None,
        "confirmed": False,
        "best": False,
        "began": 1.0,
        "seconds": 10.0 * number,
        "full": None,
        "champion": None,
        **more,
    }


def right(number: int, **more) -> dict:
    kernel = {
        "source": "class ModelNew:\n    pass\n",
        "language": "cpp",
        "verdict": "correct",
        "reason": "correct, 1.5x",
    }
    figures = {"speedup": 1.5, "confirmed": True, "best": True, "champion": REPORT, "full": REPORT}
    return record(number, **{**kernel, **figures, **more})


def folder(tmp_path: Path, *records: dict, status: dict | None = None) -> Path:
    async def archive() -> None:
        parts = Parts(tmp_path / "attempts")
        for each in records:
            await parts.append(each)

    asyncio.run(archive())
    if status is not None:
        (tmp_path / "status.json").write_text(json.dumps(status))
    return tmp_path


def status(**more) -> dict:
    return {
        "sequence": 1,
        "attempts": {"total": 2, "infrastructure": 3},
        "tokens": {"prompt": 11, "completion": 22, "reasoning": 5},
        "problem": {"name": "relu", "sha256": "0" * 64},
        "best": {"attempt": 2},
        "curve": [{"seconds": 20, "attempts": 2, "bestSpeedup": "1.5"}],
        "outcome": {"reason": "DeadlineReached", "message": "the deadline of 60 s was reached"},
        **more,
    }


class Tags(HTMLParser):
    """What a browser would see: elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))


# ---- what is read ----


def test_the_attempt_of_the_status_is_the_best(tmp_path):
    found = history.read(folder(tmp_path, record(1), right(2), right(3, best=False), status=status()))

    assert (found.name, found.best.number) == ("relu", 2)
    assert found.verdicts == [("correct", 2), ("no_code", 1)]
    assert found.outcome == "DeadlineReached: the deadline of 60 s was reached"
    assert found.curve == [(20.0, 1.5)]


def test_without_a_status_the_archive_tells_the_best_and_the_curve(tmp_path):
    found = history.read(folder(tmp_path, right(1), record(2), right(3, speedup=2.0)))

    assert found.best.number == 3
    assert found.curve == [(10.0, 1.5), (30.0, 2.0)]


def test_a_kernel_that_was_not_re_verified_is_no_point_of_the_curve(tmp_path):
    assert history.read(folder(tmp_path, right(1, confirmed=False))).curve == []


def test_an_attempt_that_was_archived_twice_counts_once(tmp_path):
    found = history.read(folder(tmp_path, record(1), record(1, reason="again")))

    assert [each.reason for each in found.attempts] == ["again"]


def test_fields_of_strange_types_do_no_harm(tmp_path):
    strange = {"attempt": 1, "answer": ["x"], "reason": 7, "seconds": "soon", "full": "no", "base": "x", "tokens": None}

    found = history.read(folder(tmp_path, strange, status={"best": [], "curve": {"a": 1}, "attempts": None}))

    assert found.attempts[0].reason == ""
    assert page.render(found)
    assert table.text(found)


def test_a_status_that_is_torn_is_none(tmp_path):
    folder(tmp_path, record(1))
    (tmp_path / "status.json").write_text('{"best": ')

    assert history.read(tmp_path).status == {}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(history.NoHistoryError, match="give the --out of a run"):
        history.read(tmp_path)


# ---- honesty ----


@pytest.mark.parametrize("show", [page.render, table.text])
def test_a_replay_is_called_one(tmp_path, show):
    replayed = right(1, answer={"content": "", "model": "replay:quickstart", "tokens": {}})

    assert "replay of written answers, no language model" in " ".join(
        show(history.read(folder(tmp_path, replayed))).split()
    )


@pytest.mark.parametrize("show", [page.render, table.text])
def test_a_models_answers_are_not_called_a_replay(tmp_path, show):
    assert "replay" not in show(history.read(folder(tmp_path, right(1)))).lower()


@pytest.mark.parametrize("show", [page.render, table.text])
def test_an_unsound_problem_is_called_one(tmp_path, show):
    problem = {"name": "x", "degenerate": {"finding": "zeros", "criterion": "ours", "evidence": "all zeros pass"}}

    assert "zeros (ours): all zeros pass" in show(
        history.read(folder(tmp_path, right(1), status=status(problem=problem)))
    )


def test_attempts_that_are_counted_and_not_archived_are_told(tmp_path):
    found = history.read(folder(tmp_path, record(1), status=status(attempts={"total": 4})))

    assert "3 more attempts are counted but not archived" in page.render(found)


# ---- the table ----


def test_the_table_shows_every_attempt_and_the_figure(tmp_path):
    text = table.text(history.read(folder(tmp_path, record(1), right(2, step="repair", base=1), status=status())))

    assert "repair of 1" in text
    assert "1.500x" in text
    assert "best: attempt 2, 1.500 times as fast as eager (99 % interval 1.400 to 1.600, 60 interleaved pairs)" in text
    assert "verdicts: 1 no_code, 1 correct" in text


def test_the_table_says_that_nothing_was_found(tmp_path):
    assert "no correct kernel" in table.text(history.read(folder(tmp_path, record(1))))


def test_a_terminal_is_not_steered_by_a_reason(tmp_path):
    text = table.text(history.read(folder(tmp_path, record(1, reason=f"[bold]x[/] {EVIL}"))))

    assert "\x1b" not in text
    assert "\x00" not in text
    assert "[bold]x[/]" in text


# ---- the page ----


@pytest.fixture
def hostile(tmp_path) -> str:
    """A page whose every text is an attack."""
    said = {"content": EVIL, "reasoning": EVIL, "model": EVIL, "tokens": {"completion": 1}}
    words = {
        "prompt": EVIL,
        "reason": EVIL,
        "idea": EVIL,
        "step": EVIL,
        "source": EVIL,
        "language": EVIL,
        "answer": said,
    }
    reports = {"full": {"summary": EVIL, EVIL: EVIL}, "champion": {**REPORT, "logs": EVIL}}
    outcome = {"reason": EVIL, "message": EVIL}
    problem = {"name": EVIL, "degenerate": {"finding": EVIL, "evidence": EVIL, "criterion": EVIL}}
    attempt = right(2, verdict=EVIL, **words, **reports)
    return page.render(history.read(folder(tmp_path, attempt, status=status(outcome=outcome, problem=problem))))


def test_what_a_model_wrote_is_text_and_nothing_else(hostile):
    tags = Tags(hostile).seen

    assert "&lt;script&gt;alert(1)" in hostile
    assert not {tag for tag, _ in tags} & {"script", "img", "iframe", "object", "embed", "link", "base", "form"}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_templates_in_an_answer_are_not_evaluated(hostile):
    assert "{{ 7*7 }}" in hostile


def test_control_characters_and_bidirectional_marks_do_not_reach_quoted_texts(hostile):
    quoted = "".join(re.findall(r"<pre>(.*?)</pre>", hostile, re.DOTALL))

    assert quoted
    assert not {"\x00", "\x1b", "\u202e"} & set(quoted)


def test_a_browser_is_told_to_run_and_load_nothing(hostile):
    (policy,) = [
        each["content"] for tag, each in Tags(hostile).seen if each.get("http-equiv") == "Content-Security-Policy"
    ]

    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_stands_alone(tmp_path):
    text = page.render(history.read(folder(tmp_path, record(1), right(2), status=status())))

    assert "<svg" in text
    names = ("src", "href", "xlink:href", "action", "data")
    outside = [each[name] for _, each in Tags(text).seen for name in names if each.get(name)]
    assert [each for each in outside if not each.startswith("#")] == []
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_every_prompt_thought_answer_and_report_can_be_unfolded(tmp_path):
    text = page.render(history.read(folder(tmp_path, record(1), right(2))))

    for title in ("Prompt", "Thought", "Answer", "Kernel", "Report", "Report of the re-verification"):
        assert f"<summary>{title}</summary>" in text
    assert "prompt 1" in text
    assert "prompt 2" in text


def test_the_best_kernel_is_highlighted(tmp_path):
    text = page.render(history.read(folder(tmp_path, right(1))))

    assert '<span class="nc">ModelNew</span>' in text
    assert '<tr class="best">' in text


def test_an_endless_thought_is_cut(tmp_path):
    endless = record(1, answer={"content": "", "reasoning": "x" * 3_000_000, "model": "m"})

    assert len(page.render(history.read(folder(tmp_path, endless)))) < 600_000


def test_a_lone_surrogate_does_not_stop_the_page(tmp_path):
    page.write(history.read(folder(tmp_path, right(1, reason="\ud800", idea="\udfff"))), tmp_path / "x.html")

    assert (tmp_path / "x.html").stat().st_size > 1000


# ---- the curve ----


def test_the_curve_goes_on_to_the_end_and_is_repeatable():
    points = [(10.0, 1.1), (30.0, 2.0)]

    drawn = curve.svg(points, [(10.0, 1.1), (20.0, 0.5), (30.0, 2.1)], 90.0)

    assert drawn.startswith("<svg")
    assert drawn == curve.svg(points, [(10.0, 1.1), (20.0, 0.5), (30.0, 2.1)], 90.0)


def test_there_is_no_curve_of_nothing():
    assert not curve.svg([], [], 10.0)


# ---- the best kernel's folder ----

ORIGIN = best.Origin("relu", "import torch\n", "--dtype float32")


def test_the_best_kernel_lies_in_its_folder_with_what_reproduces_it(tmp_path):
    best.keep(tmp_path / "best", ORIGIN, right(4))

    texts = {path.name: path.read_text() for path in (tmp_path / "best").iterdir()}
    assert texts.keys() == {"kernel.py", "reference.py", "report.json", "REPRODUCE.md"}
    assert texts["kernel.py"] == "class ModelNew:\n    pass\n"
    assert json.loads(texts["report.json"]) == REPORT
    assert "--level champion --dtype float32 --baseline eager --baseline compile" in texts["REPRODUCE.md"]
    assert "re-verified in a fresh pair of processes" in texts["REPRODUCE.md"]
    assert best.is_kept(tmp_path / "best", texts["kernel.py"])


def test_a_replay_is_called_one_beside_the_kernel():
    text = best.reproduce(ORIGIN, right(1, answer={"model": "replay:quickstart"}))

    assert "replay of written answers, no language model" in text


def test_only_where_they_lie_are_its_neighbours_named():
    beside = best.reproduce(replace(ORIGIN, beside=" `../search.yaml` is the search."), right(1))

    assert beside.rstrip().endswith("whole report. `../search.yaml` is the search.")
    assert best.reproduce(ORIGIN, right(1)).rstrip().endswith("whole report.")


def test_a_kernel_that_was_not_timed_has_no_figure():
    assert "it was not timed" in best.reproduce(ORIGIN, right(1, champion=None, full={"status": "correct"}))


def test_hostile_names_stay_on_their_line():
    text = best.reproduce(ORIGIN, right(1, answer={"model": "x\n```\n# Ha"}))

    assert "\n# Ha" not in text
    assert text.count("```") == 2


def test_a_full_disk_is_the_infrastructures_fault(tmp_path):
    (tmp_path / "best").write_text("in the way")

    with pytest.raises(InfrastructureError, match="could not be written"):
        best.keep(tmp_path / "best", ORIGIN, right(1))


# ---- the command ----


def test_the_command_prints_the_table_and_writes_the_page(tmp_path):
    folder(tmp_path, record(1), right(2), status=status())

    done = CliRunner().invoke(main, ["report", str(tmp_path), "--html", str(tmp_path / "page.html")])

    assert done.exit_code == 0
    assert "best: attempt 2" in done.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_the_command_refuses_a_folder_without_a_search(tmp_path):
    done = CliRunner().invoke(main, ["report", str(tmp_path)])

    assert done.exit_code == 2
    assert "holds no search" in done.output


def test_the_command_says_when_the_page_cannot_be_written(tmp_path):
    folder(tmp_path, record(1))

    done = CliRunner().invoke(main, ["report", str(tmp_path), "--html", str(tmp_path / "none" / "page.html")])

    assert done.exit_code == 2
    assert "cannot be written" in done.output
