"""Prompts: jinja2 templates beside this file, one a phase, rendered from what the search knows.

Models of R1's kind want everything in the user's turn, one example at most a language, and never their own thoughts
back: history is a table. Each prompt has exactly one heading that begins `# Task:`; a replay model tells the phases
apart by it. What a candidate wrote goes through `untrusted` (filters `code`, `line`, `cell`).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from kernelsearch.search import untrusted
from kernelsearch.search.config import SearchConfig
from kernelsearch.search.facts import Recent
from kernelsearch.search.population import Population, Verdict
from kernelsearch.search.strategy import Fresh, Improve, Repair, Restart
from kernelverify_api.request import CustomKernel, Language

HERE = Path(__file__).parent
NUMBER = 1
"""Raised by hand when the meaning of a prompt changes; the digest in `VERSION` changes with every letter."""
HISTORY = 8
"""Attempts in the table."""

LANGUAGE_NAMES = {Language.TRITON: "Triton", Language.CUDA: "CUDA C++", Language.CPP: "C++"}
FORMS = {
    Language.TRITON: "Triton kernels are functions under `@triton.jit`.",
    Language.CUDA: "CUDA kernels are built by one call of `torch.utils.cpp_extension.load_inline` at module level.",
    Language.CPP: "C++ is built by one call of `torch.utils.cpp_extension.load_inline` at module level.",
}
BOTTLENECKS = {
    "memory": "Memory bandwidth limits it: bytes moved are what counts. ",
    "compute": "Arithmetic limits it: instructions are what counts. ",
    "launch": "Starting kernels limits it: calls and Python overhead are what counts. ",
}
VERDICTS: Mapping[str, str] = {
    Verdict.REWARD_HACK: "rejected",
    Verdict.NO_CODE: "no kernel",
    Verdict.TRUNCATED: "no kernel",
}
"""How the table names a verdict, where not by its own name: which rule was broken is never told."""


@dataclass(frozen=True)
class Limits:
    """Characters of quoted code."""

    reference: int = 256 * 1024
    source: int = 64 * 1024


@dataclass(frozen=True)
class Example:
    """An idiomatic kernel in one language."""

    language: str
    source: str


def _version() -> str:
    digest = hashlib.sha256()
    for path in sorted((*HERE.glob("*.j2"), *HERE.glob("examples/*.txt"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{NUMBER}-{digest.hexdigest()[:8]}"


VERSION = _version()
"""Recorded with each attempt: equal versions mean equal templates."""


def render(search: SearchConfig, step: Fresh | Repair | Improve | Restart, population: Population) -> str:
    """The prompt that carries out this step."""
    match step:
        case Fresh(idea) | Restart(idea):
            seen = _history(population.recent) if isinstance(step, Restart) else ()
            return _render("first", search, idea=idea, examples=_examples(search), history=seen)
        case Repair(attempt):
            return _render(
                "repair", search, idea=attempt.idea, source=attempt.source, feedback=attempt.feedback, history=()
            )
        case Improve(attempt, method):
            return _render(
                "improve",
                search,
                idea=method,
                source=attempt.source,
                feedback=attempt.feedback,
                bottleneck=BOTTLENECKS.get(attempt.bound, ""),
                history=_history(population.recent),
            )


def _render(template: str, search: SearchConfig, **more: Any) -> str:
    text = _environment().get_template(f"{template}.md.j2").render(_common(search), **more)
    return _tidy(text)


def _common(search: SearchConfig) -> dict[str, Any]:
    return {
        "languages": " or ".join(LANGUAGE_NAMES[language] for language in search.languages),
        "kernel_form": " ".join(FORMS[language] for language in search.languages),
        "custom": search.custom_kernel is CustomKernel.REQUIRED,
        "torch_ops": search.torch_ops.value,
        "dtype": search.problem.dtype,
        "allow_tf32": search.problem.allow_tf32,
        "device": search.hardware.device,
        "hardware": search.hardware,
        "emulated": [LANGUAGE_NAMES[language] for language in search.languages if _is_emulated(search, language)],
        "timed": [LANGUAGE_NAMES[language] for language in search.languages if not _is_emulated(search, language)],
        "baselines": search.baselines,
        "reference": search.problem.source,
        "initial_prompt": search.initial_prompt.strip(),
        "limits": Limits(),
    }


def _is_emulated(search: SearchConfig, language: Language) -> bool:
    return language in search.hardware.emulated_languages


def _examples(search: SearchConfig) -> list[Example]:
    return [
        Example(LANGUAGE_NAMES[language], (HERE / "examples" / f"{language.value}.py.txt").read_text(encoding="utf-8"))
        for language in search.languages
    ]


def _history(recent: Iterable[Recent]) -> tuple[Recent, ...]:
    return tuple(recent)[-HISTORY:]


@cache
def _environment() -> jinja2.Environment:
    # Prompts are plain text for a model: there is nothing to escape for, and user's text is never a template.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters.update(
        code=untrusted.code,
        line=untrusted.line,
        cell=lambda text: untrusted.line(text, 90).replace("|", "/") or "–",
        verdict=lambda verdict: str(VERDICTS.get(verdict, verdict)).replace("_", " "),
        times=lambda speedup: "–" if speedup is None else f"{speedup:.2f}",
    )
    return environment


def _tidy(text: str) -> str:
    """No more than one empty line in a row outside code, one line end at the end."""
    tidy: list[str] = []
    fence = ""
    for line in text.split("\n"):
        if not fence and not line.strip() and (not tidy or not tidy[-1].strip()):
            continue
        mark = line[: len(line) - len(line.lstrip("`"))]
        if len(mark) >= 3:  # noqa: PLR2004 - a fence
            fence = mark if not fence else "" if line == fence else fence
        tidy.append(line)
    return "\n".join(tidy).strip() + "\n"
