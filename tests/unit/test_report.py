"""The page stands alone, shows everything, and nothing that a model wrote comes alive in it."""

import json

import pytest

from kernelsearch.report import page
from kernelsearch.search.archive import Parts

EVIL = "<script>alert(1)</script></pre><img src=x onerror=alert(2)>"
RECORD = {
    "attempt": 1,
    "chain": 0,
    "step": "fresh",
    "prompt": EVIL,
    "answer": {"content": EVIL, "reasoning": EVIL, "model": "replay:evil", "finish": "stop"},
    "source": f"# {EVIL}\nclass ModelNew: pass\n",
    "language": "cpp",
    "verdict": "correct",
    "reason": EVIL,
    "speedup": 2.0,
    "seconds": 12.0,
    "full": {"summary": EVIL},
    "champion": None,
}
FACTS = {
    "sequence": 1,
    "attempts": {"total": 1, "infrastructure": 0},
    "tokens": {"prompt": 10, "completion": 20, "reasoning": 5},
    "best": {"attempt": 1, "speedup": "2.0", "speedupCI": ["1.9", "2.1"], "baseline": "eager", "source": EVIL},
    "curve": [{"seconds": 12, "attempts": 1, "bestSpeedup": "2.0"}],
    "recentAttempts": [{"id": 1, "chain": 0, "verdict": "correct", "seconds": 12}],
    "outcome": {"reason": "DeadlineReached", "message": EVIL},
}


@pytest.fixture
async def folder(tmp_path):
    await Parts(tmp_path / "attempts").append(RECORD)
    (tmp_path / "status.json").write_text(json.dumps(FACTS))
    return tmp_path


async def test_hostile_text_is_inert(folder):
    page.write(folder, folder / "report.html")
    text = (folder / "report.html").read_text()

    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


async def test_the_page_names_no_other_place(folder):
    page.write(folder, folder / "report.html")
    text = (folder / "report.html").read_text()

    assert "<svg" in text
    assert 'src="' not in text
    assert "<link" not in text
    assert "default-src 'none'" in text


async def test_a_replay_is_called_one(folder):
    page.write(folder, folder / "report.html")
    page.keep_best(folder, FACTS)

    assert "Replay" in (folder / "report.html").read_text()
    assert "replay" in (folder / "best/REPRODUCE.md").read_text()


async def test_the_best_kernel_lies_in_its_folder(folder):
    page.keep_best(folder, FACTS)

    assert (folder / "best/kernel.py").read_text() == RECORD["source"]
    assert "99 % interval 1.9 to 2.1" in (folder / "best/REPRODUCE.md").read_text()


async def test_the_table_shows_attempts_and_best(folder):
    text = page.table(folder)

    assert "correct" in text
    assert "2.0x eager" in text


async def test_a_folder_without_a_search_is_said(tmp_path):
    from click.testing import CliRunner

    from kernelsearch.cli import main

    done = CliRunner().invoke(main, ["report", str(tmp_path)])

    assert done.exit_code == 2
    assert "no search" in done.output
