"""Where the wrong elements lie, in words that help to mend a kernel."""

import torch
from torch import Tensor

MOST_SAMPLES = 8
NEARLY_ALL = 0.98


def describe(wrong: Tensor, got: Tensor, want: Tensor) -> str:
    """Name the pattern of a mask of wrong elements, all of one shape."""
    if not bool(wrong.any()):
        return ""
    if got.is_floating_point() and bool(torch.isnan(got[wrong]).all()):
        return f"nan or never written: {_place(wrong, got, want)}"
    return _place(wrong, got, want)


def _place(wrong: Tensor, got: Tensor, want: Tensor) -> str:
    count, total = int(wrong.sum()), wrong.numel()
    if count >= NEARLY_ALL * total:
        return _whole(got, want)
    return _row_tail(wrong) or _last_rows(wrong) or _last_tile(wrong) or f"scattered, {count} of {total}"


def samples(wrong: Tensor) -> list[tuple[int, ...]]:
    """Indices of at most eight wrong elements, spread over the mask."""
    places = wrong.nonzero()
    step = max(1, len(places) // MOST_SAMPLES)
    return [tuple(int(i) for i in row) for row in places[::step][:MOST_SAMPLES]]


def _whole(got: Tensor, want: Tensor) -> str:
    if got.dim() == 2 and got.shape[0] == got.shape[1] and torch.allclose(got.T.double(), want.double(), rtol=1e-3):  # noqa: PLR2004
        return "transposed"
    if not bool(got.any()):
        return "all, and all zero"
    return "all"


def _row_tail(wrong: Tensor) -> str:
    """Wrong only from some column on, in every row."""
    if wrong.dim() < 2:  # noqa: PLR2004
        return ""
    columns = wrong.reshape(-1, wrong.shape[-1]).any(0)
    first = int(columns.nonzero()[0])
    if first == 0 or not bool(columns[first:].float().mean() > NEARLY_ALL):
        return ""
    return f"row tail, columns from {first} of {wrong.shape[-1]}"


def _last_rows(wrong: Tensor) -> str:
    rows = wrong.reshape(wrong.shape[0], -1).any(1) if wrong.dim() else wrong.reshape(1)
    first = int(rows.nonzero()[0])
    if first == 0 or not bool(rows[first:].float().mean() > NEARLY_ALL):
        return ""
    return f"last rows, from {first} of {len(rows)}"


def _last_tile(wrong: Tensor) -> str:
    flat = wrong.reshape(-1)
    first = int(flat.nonzero()[0])
    return f"last tile, elements from {first} of {flat.numel()}" if first > flat.numel() // 2 else ""
