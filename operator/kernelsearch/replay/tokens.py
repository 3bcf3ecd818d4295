"""Tokens of a model that has no tokenizer: pieces of text of about the size that real tokenizers make."""

import re

PIECE = re.compile(r"\s*\w{1,5}|\s*[^\w\s]{1,3}|\s+")
"""English and code come out at three to four characters a piece, as with R1's tokenizer."""


def split(text: str) -> list[str]:
    """The pieces; joined they are the text again."""
    return PIECE.findall(text)


def count(text: str) -> int:
    """How many pieces."""
    return len(split(text))
