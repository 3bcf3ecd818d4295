"""A search that asks a real model: whatever it answers is classed, and the engine's tokens are ours."""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml

import small_model
from kernelsearch.search import archive

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(900)]
CLASSES = {"no_code", "truncated", "compile_error", "runtime_error", "incorrect", "reward_hack", "timeout", "correct"}
REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) + 1


def get_inputs():
    return [torch.randn(16, 64)]


def get_init_inputs():
    return []
"""
COUNT = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for line in sys.stdin:
    prompt, answer = json.loads(line)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
    asked = asked["input_ids"] if hasattr(asked, "keys") else asked
    print(json.dumps([len(asked), len(tokenizer(answer)["input_ids"])]))
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A short search by the command line, asking the engine on loopback: its folder and its exit code."""
    folder = tmp_path_factory.mktemp("real")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with small_model.served(folder, port) as url:
        spec = {
            "problem": {"inline": {"reference": REFERENCE}},
            "kernel": {"languages": ["triton"]},
            "model": {
                "name": str(small_model.folder() / "weights"),
                "endpoint": {"url": url},
                "sampling": {"maxTokens": 256},
            },
            "verifiers": {"serve": {"device": "cpu"}},
            "search": {"chains": 1},
            "budget": {"deadlineSeconds": 600, "maxAttempts": 3},
        }
        kind = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "real"}}
        (folder / "search.yaml").write_text(yaml.safe_dump({**kind, "spec": spec}))
        run = [sys.executable, "-m", "kernelsearch.cli", "run", "-f", str(folder / "search.yaml")]
        done = subprocess.run(
            [*run, "--out", str(folder / "out")], capture_output=True, text=True, timeout=800, check=False
        )
    assert done.returncode in {0, 1}, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_whatever_it_answers_falls_into_a_class(searched):
    attempts = list(archive.read(searched / "out/attempts"))

    assert len(attempts) == 3
    assert {each["verdict"] for each in attempts} <= CLASSES


def test_the_engines_tokens_are_ours(searched):
    attempts = list(archive.read(searched / "out/attempts"))
    texts = "".join(json.dumps([each["prompt"], each["answer"]["content"]]) + "\n" for each in attempts)
    made = small_model.folder()
    count = [sys.executable, "-c", COUNT, str(made / "weights")]
    own = {**os.environ, **small_model.environment(str(made / "site"), home=str(searched))}
    counted = subprocess.run(count, input=texts, env=own, capture_output=True, text=True, check=True).stdout
    prompts, answers = zip(*map(json.loads, counted.splitlines()), strict=True)
    status = json.loads((searched / "out/status.json").read_text())

    assert status["tokens"]["prompt"] == sum(prompts)
    # the engine counts the end of an answer too, and text may be split otherwise when it is read again
    assert status["tokens"]["completion"] == pytest.approx(sum(answers), rel=0.03, abs=len(attempts))
