"""Is an answer right? Structure first, then numbers, judged on the referee's private copies only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kernelverify.host import patterns, tolerance
from kernelverify.host.reference import Draw, finite
from kernelverify_api.report import Sample, SetResult

PAIR = 2
LEFT_OUT = 0.001
"""Share of an integer output that may hang by a thread and is not judged."""

Meta = Mapping[str, Any]


def judge(draw: Draw, outputs: Sequence[Tensor], metas: Sequence[Meta], skeleton: Any) -> SetResult:
    """One input set's verdict. `metas` say what the candidate claims to have returned, `outputs` are its bytes."""
    reason = structure(draw, metas, skeleton)
    if reason:
        return SetResult(name=draw.gate, ok=False, reason=reason, shapes=draw.shapes)
    worst: SetResult | None = None
    for index in range(len(draw.eager)):
        result = _judge_one(draw, index, outputs[index])
        if worst is None or (result.share_of_limit or math.inf) > (worst.share_of_limit or 0) or not result.ok:
            worst = result
        if not result.ok:
            break
    return worst or SetResult(name=draw.gate, ok=True, shapes=draw.shapes)


def right(draw: Draw, answer: Sequence[Tensor]) -> bool:
    """Whether plain tensors, returned as the reference returns its own, would pass."""
    metas = [_plain(t) for t in answer]
    return judge(draw, answer, metas, draw.skeleton).ok


def _plain(tensor: Tensor) -> Meta:
    """What a candidate would say of it."""
    return {
        "type": "torch.Tensor",
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": "cpu",
        "layout": "strided",
        "stride": list(tensor.contiguous().stride()),
    }


def structure(draw: Draw, metas: Sequence[Meta], skeleton: Any) -> str:
    """What is wrong with the shape of the answer, or nothing."""
    if _normal(skeleton) != _normal(draw.skeleton):
        mine, wanted = _tree(skeleton), _tree(draw.skeleton)
        if mine == wanted:
            return "what forward returns beside its tensors is not what the reference returns"
        return f"forward returns {mine}; the reference returns {wanted}"
    if len(metas) != len(draw.eager):
        return f"forward returns {len(metas)} tensor(s); the reference returns {len(draw.eager)}"
    for index, (meta, want) in enumerate(zip(metas, draw.eager, strict=True)):
        reason = _meta(meta, want, aliased=draw.aliases[index])
        if reason:
            return f"output {index}: {reason}" if len(metas) > 1 else reason
    return ""


def _meta(meta: Meta, want: Tensor, *, aliased: bool) -> str:  # noqa: PLR0911 - one return a check
    """A chain of small checks; the first one that finds something speaks."""
    if meta.get("type") != "torch.Tensor":
        return f"a {meta.get('type')} is returned; return a plain torch.Tensor"
    if meta.get("shape") != list(want.shape):
        return f"shape {_size(meta.get('shape'))} where {_size(list(want.shape))} is expected"
    if meta.get("dtype") != str(want.dtype).removeprefix("torch."):
        return f"dtype {meta.get('dtype')} where {str(want.dtype).removeprefix('torch.')} is expected"
    if meta.get("device") != "cpu" or meta.get("layout") != "strided":
        return f"a {meta.get('layout')} tensor on {meta.get('device')}; return a dense tensor on the inputs' device"
    if not _strides_ok(meta.get("stride"), want):
        return f"strides {meta.get('stride')}; return a contiguous tensor (expanded or overlapping storage is refused)"
    if meta.get("alias_of_input") is not None and not aliased:
        return f"the output is a view of input {meta['alias_of_input']}; allocate a new tensor"
    if meta.get("alias_of_output") is not None:
        return "the output lies in the judge's own memory; allocate a new tensor"
    return ""


def _size(claimed: Any) -> str:
    """A claimed shape may be anything."""
    return f"({', '.join(map(str, claimed[:16]))})" if isinstance(claimed, list) else str(claimed)


def _strides_ok(stride: Any, want: Tensor) -> bool:
    if not want.numel() or stride == list(want.stride()):
        return True
    if not isinstance(stride, list) or len(stride) != want.dim():
        return False
    contiguous = torch.empty(want.shape, device="meta").stride()
    return all(a == b or n == 1 for a, b, n in zip(stride, contiguous, want.shape, strict=True))


def _normal(skeleton: Any) -> Any:
    """Tuples and lists alike. A candidate's own words may be anything: what is malformed stays and equals nothing."""
    match skeleton:
        case {"tuple": list(items)} | list(items):
            return [_normal(item) for item in items]
        case {"dict": list(pairs)} if all(isinstance(pair, list) and len(pair) == PAIR for pair in pairs):
            return {"dict": sorted(([_normal(k), _normal(v)] for k, v in pairs), key=repr)}
        case _:
            return skeleton


def _tree(skeleton: Any) -> str:
    match _normal(skeleton):
        case {"tensor": _}:
            return "a tensor"
        case list(items):
            return f"{len(items)} values"
        case {"other": str(name)}:
            return f"a {name}"
        case other:
            return str(other)[:80]


def _judge_one(draw: Draw, index: int, got: Tensor) -> SetResult:
    eager, want = draw.eager[index], draw.reference[index]
    if not eager.is_floating_point() and not eager.is_complex():
        return _judge_exact(draw, index, got)
    got, eager, want = got.double(), eager.double(), want.double()
    masks = _masks(got, eager, want)
    judged = torch.isfinite(eager) & torch.isfinite(want) & torch.isfinite(got)
    c, b, r, s = (torch.where(judged, t, torch.zeros_like(want)) for t in (got, eager, want, draw.sigma[index]))
    share = tolerance.judge(c, b, r, s, draw.rule)
    wrong = masks | ((c - r).abs() > tolerance.element_limit(b, r, s, draw.rule))
    ok = share.share <= 1 and not bool(masks.any())
    if not ok and not bool(wrong.any()):  # only the norm is off: show the largest errors
        errors = (c - r).abs()
        wrong = errors >= errors.max()
    return SetResult(
        name=draw.gate,
        ok=ok,
        reason="" if ok else _reason(share, masks),
        shapes=draw.shapes,
        normwise=finite(share.normwise),
        normwise_allowed=finite(share.normwise_allowed),
        share_of_limit=finite(share.share) if not bool(masks.any()) else None,
        max_abs=finite(share.max_abs),
        max_abs_allowed=finite(share.max_abs_allowed),
        mismatch_fraction=float(wrong.double().mean()) if not ok else 0.0,
        worst=() if ok else _samples(wrong, got, want),
        pattern="" if ok else patterns.describe(wrong, got, want),
    )


def _masks(got: Tensor, eager: Tensor, want: Tensor) -> Tensor:
    """Where NaN and ±Inf differ from eager's; not judged where eager and fp64 disagree about overflow."""
    agree = torch.isfinite(eager) == torch.isfinite(want)
    differ = (
        (got.isnan() != eager.isnan()) | (got.isposinf() != eager.isposinf()) | (got.isneginf() != eager.isneginf())
    )
    return differ & agree


def _reason(share: tolerance.Share, masks: Tensor) -> str:
    if bool(masks.any()):
        return "NaN or Inf where the reference has none, or the other way round"
    return f"the error is {share.share:.3g} times what is allowed"


def _judge_exact(draw: Draw, index: int, got: Tensor) -> SetResult:
    """Integers and booleans: equal, but for the few elements that the reference itself cannot decide."""
    want, unsure = draw.eager[index], draw.sigma[index].bool()
    wrong = got != want
    left_out = wrong & unsure
    ok = not bool((wrong & ~unsure).any()) and float(left_out.double().mean()) <= LEFT_OUT
    return SetResult(
        name=draw.gate,
        ok=ok,
        reason="" if ok else f"{int(wrong.sum())} of {wrong.numel()} elements differ",
        shapes=draw.shapes,
        share_of_limit=0.0 if ok else None,
        mismatch_fraction=float(wrong.double().mean()),
        worst=() if ok else _samples(wrong, got, want),
        pattern="" if ok else patterns.describe(wrong, got, want),
    )


def _samples(wrong: Tensor, got: Tensor, want: Tensor) -> tuple[Sample, ...]:
    return tuple(
        Sample(index=index, got=_show(got[index]), want=_show(want[index])) for index in patterns.samples(wrong)
    )


def _show(value: Tensor) -> str:
    return f"{value.item():.8g}" if value.is_floating_point() else str(value.item())


def precision_class(results: Sequence[SetResult]) -> str:
    """What the error on the flipped set looks like, by its size; empty when there is too little to tell."""
    errors = [r.normwise for r in results if r.name.startswith("flipped") and r.normwise]
    if not errors:
        return ""
    worst = max(errors)
    bounds = ((2e-5, "fp32"), (8e-4, "tf32 or fp16"), (2e-2, "bf16"))
    return next((name for bound, name in bounds if worst <= bound), "")


def kernelbench(draw: Draw, outputs: Sequence[Tensor]) -> dict[str, bool]:
    """KernelBench's own criterion, so that results compare with published ones."""
    pairs = list(zip(outputs, draw.eager, strict=False))

    def close(bound: float) -> bool:
        return all(
            a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=bound, rtol=bound) for a, b in pairs
        )

    return {"1e-4": close(1e-4), "1e-2": close(1e-2)}


def plausible(draw: Draw, outputs: Sequence[Tensor], baseline: Sequence[Tensor]) -> bool:
    """A cheap look at a timed call: near enough to the baseline's output of the same inputs.

    Limits are those of a judged draw, relative to the size of its answer, plus the baseline's own error. Whoever fails
    here is judged in full; so this look can only let pass, never reject.
    """
    return all(
        _near(*pair, draw.eager[i], draw.reference[i], draw.sigma[i], draw.rule)
        for i, pair in enumerate(zip(outputs, baseline, strict=True))
    )


def _near(got: Tensor, base: Tensor, eager: Tensor, want: Tensor, sigma: Tensor, rule: tolerance.Rule) -> bool:
    if not base.is_floating_point():
        return bool(torch.equal(got, base))
    got, base, eager, want = got.double(), base.double(), eager.double(), want.double()
    if not bool(torch.isfinite(got).all()) or not bool(torch.isfinite(want).all()):
        return False
    shares = tolerance.judge(eager, eager, want, sigma, rule)
    norm = (shares.normwise_allowed + shares.normwise) * base.norm().item()
    scale = base.abs().max().item() / max(want.abs().max().item(), tolerance.TINY)
    element = (tolerance.element_limit(eager, want, sigma, rule) + shares.max_abs) * scale
    error = got - base
    return error.norm().item() <= norm and error.abs().max().item() <= element
