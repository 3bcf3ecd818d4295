"""Takes the kernel out of a model's answer. Pure.

The rules, in order (what real answers of reasoning models need):
1. The thought ends at the *last* `</think>`; the opening tag may be missing, since chat templates write it themselves.
2. The kernel is the *last* fenced block that defines `ModelNew`, never the first: models quote their drafts.
   A fence may stay unclosed at the end. Without any fence the whole answer is read as code, if it is Python.
3. An answer that was cut short (`length`, `cut`) counts only when its thought had ended and its block is closed.
4. Text that cannot be sent anywhere (lone surrogates, NUL) is refused here: one would fail every later write.
"""

import ast
import re
import warnings
from dataclasses import dataclass

from kernelsearch.search.ports import Answer, Finish
from kernelverify_api.request import MAX_SOURCE, Language

ENTRY = "ModelNew"
_FENCE = re.compile(r"^[ \t]*(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$")
_CLASS = re.compile(rf"^class[ \t]+{ENTRY}\b", re.MULTILINE)
_UNSENDABLE = re.compile("[\ud800-\udfff\x00]")
MAX_SPLITS = 4
"""Fences inside one block that are looked through."""
_STARTS_CODE = re.compile(
    r"^(import [\w.]+|from [\w.]+ import |class \w+.*:|def \w+\(|@|#|\"\"\"|'''|[A-Za-z_]\w*\s*=)"
)
_PROSE = re.compile(r"^[A-Z*>•-]\S*( \S+){2,}")
"""An unindented line of at least three words that begins as a sentence or a list does."""


@dataclass(frozen=True)
class Kernel:
    """What the model proposes."""

    source: str
    language: Language


@dataclass(frozen=True)
class NoKernel:
    """There is none, and why: words that can be told to the model."""

    reason: str


@dataclass(frozen=True)
class Block:
    """One fenced block: lines `first` to `end` (exclusive) of the text, fences not included."""

    first: int
    end: int
    closed: bool


def kernel(answer: Answer, allowed: tuple[Language, ...]) -> Kernel | NoKernel:
    """The kernel in this answer, or why there is none."""
    whole = answer.finish is Finish.STOP
    final = _final_text(answer, whole)
    if final is None:
        return NoKernel("the answer ended inside its thought")
    source = _last_kernel(final, whole)
    if isinstance(source, NoKernel):
        return source
    return _sendable(source, allowed)


def language(source: str, allowed: tuple[Language, ...]) -> Language:
    """The kernel language that a source is written in; where nothing tells, the preferred allowed one."""
    if re.search(r"\bcuda_sources?\b|__global__", source):
        return Language.CUDA
    if re.search(r"@triton\.|\bimport triton\b|\bfrom triton\b", source):
        return Language.TRITON
    if re.search(r"\bcpp_sources?\b|\bload_inline\b", source):
        return Language.CPP
    return allowed[0]


def blocks(lines: list[str]) -> list[Block]:
    """All fenced blocks, in order. A closing fence is bare, of the same sign, and as long as the opening one."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    first = 0
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is not None and not _inside(fence, opened):
            closes = not fence["info"].strip()
            found.append(Block(first, number, closed=closes))
            # Two opening fences in a row: the first was never closed, the model began again.
            opened, first = (None, 0) if closes else (fence, number + 1)
        elif opened is None:
            opened, first = fence, number + 1
    if opened is not None:
        found.append(Block(first, len(lines), closed=False))
    return found


def _inside(fence: re.Match[str], opened: re.Match[str]) -> bool:
    """Whether a fence belongs to the text of the opened block."""
    return fence["ticks"][0] != opened["ticks"][0] or len(fence["ticks"]) < len(opened["ticks"])


def _final_text(answer: Answer, whole: bool) -> str | None:
    """What comes after the thought; None when the thought never ended."""
    if answer.content.strip():
        return _after_thought(answer.content, whole, separated=bool(answer.reasoning.strip()))
    # Some servers leave everything in the thought's field when the closing tag never came.
    return _after_thought(answer.reasoning, whole, separated=False)


def _after_thought(text: str, whole: bool, separated: bool) -> str | None:
    _, closing, final = text.rpartition("</think>")
    if closing:
        return final if final.strip() or not whole else text
    if whole:
        return text
    return text if separated and "<think>" not in text else None


def _last_kernel(text: str, whole: bool) -> str | NoKernel:
    lines = text.replace("\r\n", "\n").split("\n")
    found = [block for block in blocks(lines) if block.closed or whole]
    for index in range(len(found) - 1, -1, -1):
        code = _code_of(lines, found[index:])
        if _defines_entry(code):
            return code
    if found:
        return NoKernel(f"no code block defines a class {ENTRY}")
    bare = _code(lines)
    if whole and _tree(bare) is not None and _defines_entry(bare):
        return bare
    return NoKernel("the answer holds no code block")


def _code_of(lines: list[str], found: list[Block]) -> str:
    """The code of the first block. When it does not parse, a fence inside it (in a docstring) may have split it."""
    own = _code(lines[found[0].first : found[0].end])
    if _tree(own) is None:
        ends = [end for later in found[1 : 1 + MAX_SPLITS] for end in (later.first - 1, later.end)]
        for end in ends:
            joined = _code(lines[found[0].first : end])
            if _tree(joined) is not None and _defines_entry(joined):
                return joined
    return own


def _sendable(source: str, allowed: tuple[Language, ...]) -> Kernel | NoKernel:
    if _UNSENDABLE.search(source):
        return NoKernel("the code holds characters that are no valid text")
    if len(source) > MAX_SOURCE:
        return NoKernel(f"the code is {len(source)} characters long; {MAX_SOURCE} are allowed")
    return Kernel(source.strip("\n") + "\n", language(source, allowed))


def _defines_entry(code: str) -> bool:
    """By syntax where the code parses, so that a mention in a string or comment is none; by text where it does not."""
    tree = _tree(code)
    if tree is None:
        return _CLASS.search(code) is not None
    return any(isinstance(node, ast.ClassDef) and node.name == ENTRY for node in ast.walk(tree))


def _code(lines: list[str]) -> str:
    """The lines without a common indent and without prose around the code, where that makes them Python.

    Only what is plainly prose goes: a broken line of code must reach the verifier, which tells the model about it.
    """
    lines = _dedented(lines)
    text = "\n".join(lines)
    if _tree(text) is not None or _UNSENDABLE.search(text):
        return text
    first = next((number for number, line in enumerate(lines) if _STARTS_CODE.match(line)), 0)
    end = len(lines)
    while end > first and (not lines[end - 1].strip() or _is_prose(lines[end - 1])):
        end -= 1
    trimmed = "\n".join(lines[first:end])
    return text if _tree(trimmed) is None else trimmed


def _is_prose(line: str) -> bool:
    return bool(_PROSE.match(line)) and not _STARTS_CODE.match(line)


def _dedented(lines: list[str]) -> list[str]:
    """Without the indent that a fence inside a list brings along."""
    indents = [len(line) - len(line.lstrip(" ")) for line in lines if line.strip()]
    cut = min(indents, default=0)
    return [line[cut:] if line.strip() else "" for line in lines] if cut else lines


def _tree(text: str) -> ast.Module | None:
    """The syntax tree of Python text; None when it is none, or empty."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a strange escape in a model's string is not our concern
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if tree.body else None
