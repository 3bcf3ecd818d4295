"""How much of the tolerance honest and low-precision kernels use: the sweep behind the constants.

For every sound problem of tests/problems and every gate: the share of the limit that eager with another thread count
uses, and the same reference with inputs and weights rounded to TF32, fp16 and bf16. Above 1 is a rejection.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kernelverify.host import correctness, inputs, memory, reference
from kernelverify.host.session import Session
from kernelverify_api.request import Problem

PROBLEMS = Path(__file__).resolve().parent.parent / "tests/problems"


def tf32(tensor: Tensor) -> Tensor:
    return ((tensor.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


ROUNDINGS = {
    "tf32": tf32,
    "fp16": lambda t: t.half().float(),
    "bf16": lambda t: t.bfloat16().float(),
}


def share(draw: reference.Draw, outputs: list[Tensor]) -> float:
    metas = [
        {
            "type": "torch.Tensor",
            "shape": list(t.shape),
            "dtype": str(t.dtype).removeprefix("torch."),
            "device": "cpu",
            "layout": "strided",
            "stride": list(t.stride()),
        }
        for t in outputs
    ]
    result = correctness.judge(draw, outputs, metas, draw.skeleton)
    return float("inf") if result.share_of_limit is None else result.share_of_limit


def rounded(session: Session, draw: reference.Draw, how: Any) -> list[Tensor]:
    def change(value: Any) -> Any:
        return how(value) if isinstance(value, Tensor) and value.dtype is torch.float32 else value

    model: nn.Module = copy.deepcopy(session.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(change(parameter))
    return memory.flatten(session.loaded.forward(model, tree_map(change, draw.inputs)))[1]


def honest(session: Session, draw: reference.Draw) -> list[Tensor]:
    """Eager once more, with another thread count and without MKL-DNN."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            return memory.flatten(session.loaded.forward(session.model, draw.inputs))[1]
    finally:
        torch.set_num_threads(threads)


def sweep(path: Path) -> dict[str, dict[str, float]]:
    session = Session(Problem(source=path.read_text(), name=path.stem), seed=0)
    found: dict[str, dict[str, float]] = {}
    for gate in ("own", *inputs.FLIPPED):
        draw = session.draw(gate)
        if draw is None or not all(t.is_floating_point() for t in draw.eager):
            continue
        found[gate] = {"honest": share(draw, honest(session, draw))}
        found[gate] |= {name: share(draw, rounded(session, draw, how)) for name, how in ROUNDINGS.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures = {path.stem: sweep(path) for path in sorted(PROBLEMS.glob("*.py"))}
    for problem, gates in figures.items():
        for gate, shares in gates.items():
            print(f"{problem:16} {gate:14}", *(f"{name} {value:10.3g}" for name, value in shares.items()))
    worst = max((s["honest"] for gates in figures.values() for s in gates.values()), default=0.0)
    caught = {
        name: sum(any(s[name] > 1 for s in gates.values()) for gates in figures.values() if gates) for name in ROUNDINGS
    }
    summary = {"problems": sum(bool(g) for g in figures.values()), "honest_most": worst, "caught": caught}
    print(f"honest kernels use at most {worst:.3g} of the limit; problems on which a rounding is caught: {caught}")
    if asked.json:
        print(json.dumps({**summary, "shares": figures}))


if __name__ == "__main__":
    main()
