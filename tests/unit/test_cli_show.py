"""A running search as lines, as JSON and on a terminal: the same events, each in its form, none of them steering it."""

import io
import json

import pytest
from rich.console import Console

from kernelsearch.cli import display, lines
from kernelsearch.search import ports
from kernelsearch.search.population import Attempt, Kind, Population, Verdict, count_infrastructure, remember
from kernelsearch.search.ports import Service, Tokens
from kernelverify_api.request import Level

EVENTS: dict[str, ports.Event] = {
    "started": ports.Started(2, "BestOfN", resumed=False, prompt_version="1"),
    "attempt_started": ports.AttemptStarted(3, 1, "repair", 2, "use blocks"),
    "tokens_so_far": ports.TokensSoFar(3, 1, 250),
    "verifying": ports.Verifying(3, 1, Level.FULL, "cpp"),
    "attempt_finished": ports.AttemptFinished(
        3, 1, "repair", "correct", 1.5, Tokens(10, 300), 12.0, "correct, 1.500x eager"
    ),
    "attempt_dropped": ports.AttemptDropped(4, 0, "the search ended first"),
    "best_improved": ports.BestImproved(3, 1, 1.5, (1.4, 1.6), "eager", 12.0),
    "trouble": ports.Trouble(Service.MODEL, "HTTP 500", 1, 4.0),
    "ended": ports.Ended("DeadlineReached", "the deadline of 60 s was reached"),
}
MANY = ports.Started(128, "BestOfN", resumed=False, prompt_version="1")
EVIL = "[red]x[/red] \x1b[2J\x07 a\nb \u202e"


class Clock:
    def __init__(self) -> None:
        self.time = 5.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


# ---- lines ----


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("started", "the search begins: 2 chains, strategy BestOfN"),
        ("attempt_started", "attempt 3 (chain 1): asks for repair of 2, use blocks"),
        ("tokens_so_far", ""),
        ("verifying", ""),
        ("attempt_finished", "attempt 3 (chain 1): correct after 12.0 s: 1.500x eager"),
        ("attempt_dropped", "attempt 4 (chain 0): dropped: the search ended first"),
        ("best_improved", "attempt 3 (chain 1): is the best so far, 1.500x eager (99 % interval 1.400 to 1.600)"),
        ("trouble", "trouble with the model: HTTP 500 (again in 4 s)"),
        ("ended", "ended, DeadlineReached: the deadline of 60 s was reached"),
    ],
)
def test_an_event_is_a_sentence(event, words):
    assert lines.sentence(EVENTS[event]) == words


def test_a_kernel_that_nothing_could_time_has_no_figure():
    assert "right, not timed" in lines.sentence(ports.BestImproved(1, 0, None, None, "", 1.0))


def test_a_figure_that_the_summary_lacks_is_added():
    suspicious = ports.AttemptFinished(3, 1, "fresh", "suspicious", 99.0, Tokens(), 2.0, "faster than memory")

    assert lines.sentence(suspicious).endswith("suspicious 99.000x after 2.0 s: faster than memory")


def test_a_resumed_search_goes_on():
    resumed = ports.Started(1, "Serial", resumed=True, prompt_version="1")

    assert lines.sentence(resumed).startswith("the search goes on: 1 chain,")


def test_a_line_has_its_time_and_hostile_text_stays_on_it():
    said: list[str] = []
    plain = lines.Plain(Clock(), said.append)

    plain.on(ports.AttemptDropped(1, 0, EVIL))
    plain.on(EVENTS["tokens_so_far"])

    (line,) = said
    assert "    5.0 s  attempt 1" in line
    assert "\x1b" not in line
    assert "\n" not in line


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_one_json_line_that_names_it(name):
    said: list[str] = []

    lines.JsonLines(Clock(), said.append).on(EVENTS[name])

    (line,) = said
    assert "\n" not in line
    read = json.loads(line)
    assert (read["event"], read["seconds"]) == (name, 5.0)


def test_how_long_an_attempt_took_is_not_lost_to_the_clock():
    said: list[str] = []

    lines.JsonLines(Clock(), said.append).on(EVENTS["attempt_finished"])

    assert json.loads(said[0])["took"] == 12.0


def test_tokens_are_told_now_and_then():
    said: list[str] = []
    clock = Clock()
    as_json = lines.JsonLines(clock, said.append)

    for number in range(100):
        clock.time += 0.1
        as_json.on(ports.TokensSoFar(1, 0, number))

    assert 4 <= len(said) <= 6


def test_notes_and_the_result_are_events_too():
    said: list[str] = []
    as_json = lines.JsonLines(Clock(), said.append)

    as_json.say("a note")
    as_json.result({"exitCode": 0}, "for people")

    assert [json.loads(line)["event"] for line in said] == ["note", "result"]
    assert json.loads(said[1])["exitCode"] == 0


# ---- the board ----


def drawn(board: display.Board, now: float = 20.0, width: int = 120, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(board.render(now, width, height))
    return console.file.getvalue()


def board(*events: ports.Event) -> display.Board:
    made = display.Board("relu · some-model", 60.0)
    for event in events:
        made.on(event)
    return made


def of(*names: str) -> list[ports.Event]:
    return [EVENTS[name] for name in names]


def test_a_row_follows_its_chain():
    made = board(*of("started", "attempt_started"))
    assert (made.rows[1].state, made.rows[0].state) == ("asks", "waits")

    made.on(EVENTS["tokens_so_far"])
    assert (made.rows[1].state, made.rows[1].tokens) == ("answers", 250)

    made.on(EVENTS["verifying"])
    assert made.rows[1].state == "verifies (full)"

    made.on(EVENTS["attempt_finished"])
    assert (made.rows[1].state, made.rows[1].speedup, made.rows[1].tokens) == ("correct", 1.5, 300)


@pytest.mark.parametrize(
    "part",
    [
        *("relu · some-model", "repair of 2", "correct", "1.500x", "300", "best so far: attempt 3, 1.500x eager"),
        *("0:40 to the deadline", "1 correct; 310 tokens"),
    ],
)
def test_chain_step_verdict_speedup_tokens_and_the_best_are_shown(part):
    assert part in drawn(board(*of("started", "attempt_started", "attempt_finished", "best_improved")))


def test_a_resumed_search_shows_what_it_knew():
    figures = {"confirmed": True, "speedup": 2.0, "ci99": (1.9, 2.1), "baseline": "eager"}
    attempt = Attempt(7, 0, Kind.FRESH, Verdict.CORRECT, 9.0, "", **figures)
    made = board()

    made.recall(remember(count_infrastructure(Population.of(1)), attempt, Tokens(10, 20)))
    made.on(EVENTS["started"])

    assert "best so far: attempt 7, 2.000x eager" in drawn(made)
    assert "1 correct; 30 tokens" in drawn(made)


def test_nothing_found_yet_is_said():
    text = drawn(board(EVENTS["started"]))

    assert "best so far: none yet" in text
    assert "no verdict yet" in text


def test_after_the_deadline_the_bar_says_what_is_waited_for():
    assert "evaluations in flight end" in drawn(board(EVENTS["started"]), now=61.0)


def test_trouble_is_shown_until_the_model_answers_again():
    made = board(*of("started", "attempt_started", "trouble"))
    assert "HTTP 500" in drawn(made)

    made.on(EVENTS["tokens_so_far"])
    assert "HTTP 500" not in drawn(made)


def test_more_chains_than_lines_show_those_at_work():
    text = drawn(board(MANY, ports.AttemptStarted(1, 100, "fresh", None, "")), height=24)

    assert len(text.splitlines()) <= 24
    assert "and 115 more chains" in text
    assert "100" in text


def test_a_narrow_terminal_is_no_error():
    assert drawn(board(*of("started", "attempt_finished")), width=30, height=5)


def test_hostile_text_neither_colours_nor_steers_the_terminal():
    finished = ports.AttemptFinished(3, 1, "fresh", "incorrect", None, Tokens(), 1.0, EVIL)

    text = drawn(board(EVENTS["started"], finished))

    assert "[red]x[/red]" in text
    assert "\x07" not in text
    assert "\x1b[2J" not in text


def test_the_live_display_keeps_a_line_of_what_matters_and_ends_with_the_result():
    console = Console(file=io.StringIO(), force_terminal=True, width=160, height=40)

    with display.Live("relu", 60.0, Clock(), console) as live:
        live.say("starting ...")
        for event in EVENTS.values():
            live.on(event)
        live.result({}, "the whole report")

    text = console.file.getvalue()
    for part in ("starting ...", "after 12.0 s", "is the best so far", "HTTP 500", "the whole report"):
        assert part in text
