"""Input sets: the gates that decide, and the warning sets that only inform.

Own inputs flatter low precision (KernelBench draws uniform in [0, 1)); sign-flipped ones do not: sums cancel, and
errors show. Only flips that keep what a problem may rely on are gates: masks, steps, one-hot rows and integers stay, a
symmetric matrix stays symmetric, triangles and zeros stay where they are.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

FEW_VALUES = 16
"""A float tensor with at most so many distinct values is a mask or a table of steps and is left alone."""
SAMPLE = 4096
SMALL = 2.0**-10

Generator = torch.Generator
Change = Callable[[Tensor, Generator], Tensor]


def varied(value: object) -> bool:
    """Whether a leaf is a float tensor with a range of values, so that changing it is fair."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() == 0:
        return False
    # To sort all of a large tensor takes longer than to draw it, and a few thousand values mostly decide.
    return any(torch.unique(part).numel() > FEW_VALUES for part in (value.flatten()[:SAMPLE], value))


def flip(tensor: Tensor, generator: Generator) -> Tensor:
    """Multiply by an outer product of random signs, one vector per axis; the same one on a symmetric matrix's axes."""
    signs = [_signs(n, generator) for n in tensor.shape]
    if tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1] and torch.equal(tensor, tensor.T):  # noqa: PLR2004
        signs[1] = signs[0]
    result = tensor.clone()
    for axis, sign in enumerate(signs):
        shape = [1] * tensor.dim()
        shape[axis] = -1
        result *= sign.view(shape).to(tensor.dtype)
    return result


def _signs(count: int, generator: Generator) -> Tensor:
    return torch.randint(0, 2, (count,), generator=generator) * 2 - 1


def _heavy_tails(tensor: Tensor, generator: Generator) -> Tensor:
    noise = torch.empty(tensor.shape, dtype=torch.float32).cauchy_(generator=generator).clamp(-1e4, 1e4)
    return tensor * noise.to(tensor.dtype)


def _some_not_finite(tensor: Tensor, generator: Generator) -> Tensor:
    result = tensor.clone()
    flat = result.reshape(-1)
    places = torch.randint(0, flat.numel(), (3,), generator=generator)
    flat[places] = torch.tensor([float("nan"), float("inf"), float("-inf")], dtype=tensor.dtype)
    return flat.view(tensor.shape)


OWN = ("own", "own_2", "own_3")
FLIPPED = ("flipped", "flipped_small")
GATES = (*OWN, *FLIPPED)

CHANGES: dict[str, Change] = {
    **dict.fromkeys(OWN, lambda t, _: t),
    "flipped": flip,
    "flipped_small": lambda t, g: flip(t, g) * SMALL,
    "heavy_tails": _heavy_tails,
    "times_1000": lambda t, _: t * 1000,
    "zeros": lambda t, _: torch.zeros_like(t),
    "not_finite": _some_not_finite,
}
WARNING_SETS = ("heavy_tails", "times_1000", "zeros", "not_finite")


def change(name: str, tree: Any, seed: int) -> Any:
    """A problem's own inputs as the set `name` has them."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor) or not varied(value):
            return value
        changed = CHANGES[name](value, generator)
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).copy_(changed)

    return tree_map(leaf, tree)
