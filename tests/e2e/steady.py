"""A search of many short attempts: small Triton kernels, judged by interpreter in a second or two, for ever."""

import json
from pathlib import Path
from typing import Any

import yaml

KERNEL = """
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(a_ptr, b_ptr, c_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    a = tl.load(a_ptr + offsets, mask=mask)
    b = tl.load(b_ptr + offsets, mask=mask)
    c = tl.load(c_ptr + offsets, mask=mask)
    tl.store(y_ptr + offsets, {result}, mask=mask)


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.empty_like(a)
        kernel[(triton.cdiv(a.numel(), {block}),)](a, b, c, y, a.numel(), BLOCK={block})
        return y
"""
ODD = "🚀 中 \x7f \ufffe \u2028 \x1b[31m"
"""What a model may write into a comment, and what has to come through every layer as it is."""


def _answer(result: str, block: int) -> dict[str, str]:
    source = KERNEL.replace("{result}", result).replace("{block}", str(block))
    return {"content": f"```python\n# {ODD}{source}```\n"}


ANSWERS = {
    "none": {"content": "I would fuse it."},
    "wrong": _answer("a * b - c", 1024),
    "small": _answer("a * b + c", 256),
    "large": _answer("a * b + c", 2048),
}
SCRIPT = {
    "schema": 1,
    "model": "steady",
    "description": "Short attempts without end.",
    "pace": {"tokensPerSecond": 400, "firstTokenSeconds": 0.2},
    "answers": ANSWERS,
    "rules": [
        {"name": "first", "when": {"step": "first"}, "answers": ["none", "wrong"], "then": "cycle"},
        {"name": "repair", "when": {"step": "repair"}, "answers": ["wrong", "small"], "then": "cycle"},
        {"name": "improve", "when": {"step": "improve"}, "answers": ["large", "wrong", "small"], "then": "cycle"},
    ],
    "fallback": "small",
}
MUTE = {**SCRIPT, "rules": [], "fallback": "none"}
"""No answer holds a kernel."""


def script() -> dict[str, Any]:
    """The answers, as a ConfigMap."""
    data = {"script.yaml": yaml.safe_dump(SCRIPT), "mute.yaml": yaml.safe_dump(MUTE)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "steady"}, "data": data}


def search(root: Path, name: str = "steady", answers: str = "script.yaml", **spec: Any) -> dict[str, Any]:
    """A search by these answers; `spec` goes over it, part by part."""
    reference = (root / "tests/problems/multiply_add.py").read_text()
    serve = {
        "image": "operator",
        "args": ["replay-model", "--host", "0.0.0.0", "--port", "8000", "--script", f"/etc/replay/{answers}"],
        "podTemplate": {
            "spec": {
                "volumes": [{"name": "script", "configMap": {"name": "steady"}}],
                "containers": [{"name": "model", "volumeMounts": [{"name": "script", "mountPath": "/etc/replay"}]}],
            }
        },
    }
    whole = {
        "problem": {"inline": {"reference": reference}},
        "kernel": {"languages": ["triton"]},
        "model": {"name": "replay:steady", "serve": serve},
        "verifiers": {"serve": {"device": "cpu"}},
        "search": {"chains": 2},
        "budget": {"deadlineSeconds": 900, "gracePeriodSeconds": 10},
        **spec,
    }
    made = {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": "KernelSearch",
        "metadata": {"name": name},
        "spec": whole,
    }
    return json.loads(json.dumps(made))


def twin(runner: dict[str, Any]) -> dict[str, Any]:
    """A second runner of the same search, unknown to the operator. A forced delete leaves the old process alive for a
    moment; this one stays.
    """
    managed = "app.kubernetes.io/managed-by"
    labels = {"app.kubernetes.io/component": "runner", managed: runner["metadata"]["labels"][managed]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "twin", "labels": labels},
        "spec": {key: value for key, value in runner["spec"].items() if key != "nodeName"},
    }
