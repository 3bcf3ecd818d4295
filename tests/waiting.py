"""Waits until something has come about, instead of for a time in which it should have: a busy machine takes longer."""

import asyncio
from collections.abc import Callable

LONGEST = 60.0
"""Seconds, after which it will never come about."""


async def until(condition: Callable[[], object], seconds: float = LONGEST) -> None:
    """Returns once the condition holds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - conditions of any kind, none has an event
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise AssertionError(f"it never came about, in {seconds:g} s") from error
