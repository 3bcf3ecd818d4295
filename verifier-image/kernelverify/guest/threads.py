"""Dispatch modes are per thread; a candidate's threads must be seen too.

Threads that Python starts after `add` run inside the added contexts. Threads that already ran, or that C++ code
starts by itself, do not: modes are blind there, which is one more reason to believe only outputs.
"""

import _thread
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

Factory = Callable[[], AbstractContextManager[Any]]

_factories: list[Factory] = []


def enter_everywhere(factory: Factory) -> None:
    """Enter a new context on this thread for good, and on every thread to come for as long as it runs."""
    factory().__enter__()
    add(factory)


def add(factory: Factory) -> None:
    """Enter a new context on every thread to come."""
    _hook()
    _factories.append(factory)


def remove(factory: Factory) -> None:
    """Undo `add`. Threads that run keep their context."""
    _factories.remove(factory)


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for factory in _factories:
                stack.enter_context(factory())
            return function(*args, **kwargs)

    return call


def _hook() -> None:
    """Replace both ways to a thread: `threading` (whatever `run` a subclass has) and the bare primitive, once."""
    if getattr(threading.Thread, "_kernelverify", False):
        return
    plain_start = _thread.start_new_thread

    def start_new_thread(function: Callable[..., Any], *rest: Any) -> int:
        return plain_start(_inside(function), *rest)

    inner: Any = threading.Thread
    inner._kernelverify = True  # noqa: SLF001 - a mark of ours
    inner._bootstrap_inner = _inside(inner._bootstrap_inner)  # noqa: SLF001 - the only place all threads pass
    _thread.start_new_thread = start_new_thread
