"""One draw of a gate: inputs, eager's answer, the fp64 reference and its sensitivity. Answers stay in this process."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from kernelverify.host import inputs as input_sets
from kernelverify.host import memory, problem, tolerance
from kernelverify_api.report import DroppedGate

DRAWS = 3
"""Perturbed runs behind a sensitivity."""
INTEGER_EPSILON = 2.0**-16
"""Relative perturbation that tells which integer outputs hang by a thread."""
WIDE = torch.float64
NARROWING = {"float", "half", "bfloat16"}


@dataclass(frozen=True)
class Draw:
    """Everything that judging one input set needs. Never leaves the referee."""

    gate: str
    seed: int
    inputs: list[Any]
    skeleton: Any
    """Of eager's output."""
    eager: list[Tensor]
    reference: list[Tensor]
    """fp64 for float outputs."""
    sigma: list[Tensor]
    """Per element; for integer and boolean outputs, the mask of elements that are left out."""
    rule: tolerance.Rule
    aliases: tuple[bool, ...]
    """Which outputs of the reference share memory with an input."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(t.shape) for t in tree_leaves(self.inputs) if isinstance(t, Tensor))


def make_draw(loaded: problem.LoadedProblem, model: nn.Module, gate: str, seed: int) -> Draw | DroppedGate:
    """Draw a gate's inputs and compute the answers; a gate that the reference itself cannot pass is dropped.

    The problem's own inputs are never dropped: there the reference's error is the problem's.
    """
    own = gate in input_sets.OWN
    inputs = input_sets.change(gate, loaded.get_inputs(seed), seed)
    try:
        draw = draw_of(loaded, model, gate, inputs, seed)
        _check(gate, draw.eager, draw.reference)
    except problem.ProblemError as error:
        if own:
            raise
        return DroppedGate(name=gate, reason=f"the reference fails on it: {error.message[:300]}")
    except _UnfitError as error:
        if own:
            raise problem.ProblemError(f"on its own inputs {error}") from error
        return DroppedGate(name=gate, reason=str(error))
    return draw


class _UnfitError(Exception):
    """The reference's answer on this set cannot be judged against."""


def draw_of(loaded: problem.LoadedProblem, model: nn.Module, gate: str, inputs: list[Any], seed: int) -> Draw:
    """The answers for inputs that were drawn already, judged as those of this gate."""
    skeleton, eager = memory.flatten(loaded.forward(model, inputs))
    if not eager:
        raise problem.ProblemError(
            "Model.forward returned no tensor; return a tensor, or a tuple, list or dict of them"
        )
    eager = [t.detach().clone() for t in eager]
    rule = tolerance.Rule(_constants(loaded, model, inputs, eager), own_inputs=gate in input_sets.OWN)
    try:
        wide = _Wide(loaded, model)
        reference = wide.run(inputs)
        sigma = _sensitivity(wide, inputs, reference, eager, rule.constants.perturbation, seed)
    except problem.ProblemError:
        rule = tolerance.Rule(rule.constants, own_inputs=rule.own_inputs, fp64=False)
        wide = _Wide(loaded, model, dtype=torch.float32)
        reference = wide.run(inputs)
        sigma = _sensitivity(wide, inputs, reference, eager, rule.constants.perturbation, seed)
    aliases = tuple(_aliases(loaded, model, inputs))
    return Draw(gate, seed, inputs, skeleton, eager, reference, sigma, rule, aliases)


def _constants(
    loaded: problem.LoadedProblem, model: nn.Module, inputs: Any, eager: list[Tensor]
) -> tolerance.Constants:
    leaves = [*tree_leaves(inputs), *model.parameters(), *eager]
    floats = {t.dtype for t in leaves if isinstance(t, Tensor) and t.is_floating_point()}
    lowest = next((d for d in (torch.bfloat16, torch.float16) if d in floats), torch.float32)
    return tolerance.constants(lowest, allow_tf32=loaded.allow_tf32)


def _check(gate: str, eager: list[Tensor], reference: list[Tensor]) -> None:
    if len(eager) != len(reference) or any(a.shape != b.shape for a, b in zip(eager, reference, strict=True)):
        raise _UnfitError("the reference returns other shapes in fp64")
    if gate in input_sets.FLIPPED and not all(bool(torch.isfinite(t).all()) for t in [*eager, *reference]):
        raise _UnfitError("the reference is not finite on it")


def _aliases(loaded: problem.LoadedProblem, model: nn.Module, inputs: Any) -> list[bool]:
    copies = tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, inputs)
    with loaded.blame("Model.forward(*get_inputs())"), torch.no_grad(), problem.exact(allow_tf32=loaded.allow_tf32):
        outputs = memory.flatten(model(*copies))[1]
    storages = {t.untyped_storage().data_ptr() for t in tree_leaves(copies) if isinstance(t, Tensor)}
    return [t.untyped_storage().data_ptr() in storages for t in outputs]


def _sensitivity(
    wide: "_Wide", inputs: Any, base: list[Tensor], eager: list[Tensor], epsilon: float, seed: int
) -> list[Tensor]:
    """RMS change per element when every float input and weight is multiplied by 1 + ε·U(−1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    total = [torch.zeros(t.shape, dtype=WIDE) for t in base]
    for _ in range(DRAWS):
        for acc, moved, still in zip(total, wide.shaken(inputs, epsilon, generator), base, strict=True):
            if still.is_floating_point():
                acc.add_((moved.to(WIDE) - still.to(WIDE)).nan_to_num(0, 0, 0).pow(2) / DRAWS)
    result = [t.sqrt() for t in total]
    if all(t.is_floating_point() for t in base):
        return result
    unsure = [a.to(b.dtype) != b for a, b in zip(eager, base, strict=True)]
    for _ in range(DRAWS):
        for mask, moved, still in zip(unsure, wide.shaken(inputs, INTEGER_EPSILON, generator), base, strict=True):
            mask.logical_or_(moved != still)
    return [s if b.is_floating_point() else m for s, m, b in zip(result, unsure, base, strict=True)]


class _Wide:
    """The reference in fp64: weights, buffers, plain tensor attributes, constants made inside, casts."""

    def __init__(self, loaded: problem.LoadedProblem, model: nn.Module, dtype: torch.dtype = WIDE) -> None:
        self._loaded, self._dtype = loaded, dtype
        self._model = _widened(copy.deepcopy(model), dtype)

    def run(self, inputs: Any, model: nn.Module | None = None) -> list[Tensor]:
        wide = tree_map(self._widen, inputs)
        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)
        try:
            with _Override(self._dtype):
                return memory.flatten(self._loaded.forward(model or self._model, wide))[1]
        finally:
            torch.set_default_dtype(before)

    def shaken(self, inputs: Any, epsilon: float, generator: torch.Generator) -> list[Tensor]:
        """The answer with inputs and weights perturbed."""

        def shake(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            noise = torch.rand(value.shape, generator=generator, dtype=WIDE) * 2 - 1
            return value.to(self._dtype) * (1 + epsilon * noise).to(self._dtype)

        model = copy.deepcopy(self._model)
        _change_tensors(model, shake)
        return self.run(tree_map(shake, tree_map(self._widen, inputs)), model)

    def _widen(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self._dtype)
        return value


def _widened(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    _change_tensors(model, lambda v: v.to(dtype) if v.is_floating_point() else v)
    return model


def _change_tensors(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Replace every parameter, buffer and plain tensor attribute."""
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module._parameters.items():  # noqa: SLF001 - assigning would register it anew
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(change(parameter.data), requires_grad=False)  # noqa: SLF001
            for name, buffer in module._buffers.items():  # noqa: SLF001
                if buffer is not None:
                    module._buffers[name] = change(buffer)  # noqa: SLF001
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    setattr(module, name, change(value))


class _Override(TorchFunctionMode):
    """Any float dtype that the reference names inside becomes the wide one; `.float()` and kin too."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in NARROWING and args and isinstance(args[0], Tensor):
            return args[0].to(self._dtype)
        return func(*tree_map(self._wider, args), **tree_map(self._wider, kwargs or {}))

    def _wider(self, value: Any) -> Any:
        return self._dtype if isinstance(value, torch.dtype) and value.is_floating_point else value


def finite(value: float) -> float | None:
    """JSON has no infinities: None instead."""
    return value if math.isfinite(value) else None
