"""What reading the source shows: friendly and early, evidence only. By syntax tree, never by pattern of text.

A pattern is blinded by `s = "#"`; a tree is not. But what a candidate does is shown by running it (ablation, operator
counts), so nothing here is a verdict, save that a text which is no Python cannot be run.
"""

import ast
from dataclasses import dataclass

from kernelverify_api.report import Static

ENTRY = "ModelNew"
SUSPECT_MODULES = ("socket", "subprocess", "multiprocessing", "gc", "inspect", "ctypes", "urllib", "requests")


@dataclass(frozen=True)
class Reading:
    """What the tree says."""

    static: Static
    syntax_error: str = ""
    line: int | None = None
    imports: frozenset[str] = frozenset()


def read(source: str) -> Reading:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        message = f"{type(error).__name__}: {getattr(error, 'msg', None) or error}"
        return Reading(Static(errors=(message[:500],)), syntax_error=message[:500], line=line)
    imports = frozenset(_imports(tree))
    return Reading(Static(errors=tuple(_errors(tree)), warnings=tuple(_warnings(tree, imports))), imports=imports)


def _imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module.split(".")[0])
    return found


def _errors(tree: ast.Module) -> list[str]:
    names = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    names |= {t.id for n in ast.walk(tree) if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    names |= {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    return [] if ENTRY in names else [f"the source defines no {ENTRY}; write `class {ENTRY}(torch.nn.Module)`"]


def _warnings(tree: ast.Module, imports: frozenset[str]) -> list[str]:
    found = [f"imports {name}, which no kernel needs" for name in SUSPECT_MODULES if name in imports]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == ENTRY and _is_empty(node):
            found.append(f"{ENTRY} adds nothing to what it inherits")
        if isinstance(node, ast.Try) and any(isinstance(n, ast.Return) for h in node.handlers for n in ast.walk(h)):
            found.append(f"line {node.lineno}: returns from an exception handler, a fallback")
    return found


def _is_empty(node: ast.ClassDef) -> bool:
    return all(
        isinstance(n, ast.Pass) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in node.body
    )
