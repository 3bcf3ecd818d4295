"""What a C++ build of a candidate costs: torch's own `load_inline` against the build pool.

    python benchmarks/build.py [--repeat N] [--json]

One compiler at a time; each figure is the median of builds of different sources, so nothing comes from the cache of
results. On a busy machine look at the ratios: the kinds are interleaved.
- plain: `torch.utils.cpp_extension.load_inline` in a process that has imported torch already
- cold: the pool with an empty cache, bindings included (the verifier makes those at its start)
- lean: the pool, bindings there
- warm: the pool, and a precompiled header for these flags
- mistake: the pool, for a source that does not compile
- cached: the same source once more
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from kernelverify.build import service
from kernelverify.guest import build_shim

FLAGS = ["-O3", "-march=native", "-ffast-math"]
SOURCE = """// {number}
#include <ATen/Parallel.h>
#include <cmath>

torch::Tensor energy(torch::Tensor x, torch::Tensor gate) {{
  const int64_t rows = x.size(0), columns = x.size(1);
  auto out = torch::empty({{rows}}, x.options());
  const float *px = x.data_ptr<float>(), *pg = gate.data_ptr<float>();
  float* po = out.data_ptr<float>();
  at::parallel_for(0, rows, 8, [&](int64_t begin, int64_t end) {{
    for (int64_t r = begin; r < end; ++r) {{
      float total = 0.0f;
      for (int64_t c = 0; c < columns; ++c) {{
        const float h = px[r * columns + c], v = pg[r * columns + c] * h / (1.0f + std::exp(-h));
        total += v * v;
      }}
      po[r] = total / {divisor};
    }}
  }});
  return out;
}}
"""


def plain(number: int, folder: Path) -> float:
    """Torch's own way, in seconds."""
    import torch.utils.cpp_extension

    source = SOURCE.format(number=number, divisor="columns")
    (folder / str(number)).mkdir()
    began = time.perf_counter()
    torch.utils.cpp_extension.load_inline(
        f"plain{number}", source, functions=["energy"], extra_cflags=FLAGS, build_directory=str(folder / str(number))
    )
    return time.perf_counter() - began


async def pooled(builder: service.Builder, number: int, divisor: str = "columns") -> float:
    """The pool's, in seconds."""
    text = build_shim.compose(
        [SOURCE.format(number=number, divisor=divisor)],
        build_shim.exports("energy"),
        headers=("torch/extension.h",),
    )
    flags = {"cflags": FLAGS, "ldflags": []}
    began = time.perf_counter()
    built = await builder.build(build_shim.request(f"pool{number}", {"main.cpp": text}, ["energy"], flags))
    assert built.ok == (divisor == "columns"), built.errors
    return time.perf_counter() - began


async def measure(repeat: int, folder: Path) -> dict[str, float]:
    """Median seconds of each kind."""
    seconds: dict[str, list[float]] = {kind: [] for kind in ("plain", "cold", "lean", "mistake", "warm", "cached")}
    builder = service.Builder(folder / "kept", 1)
    await pooled(builder, 0)
    for number in range(1, repeat + 1):
        seconds["plain"].append(plain(number, folder))
        seconds["cold"].append(await pooled(service.Builder(folder / f"new{number}", 1), number))
        # a builder of its own, so that no header is made in between
        seconds["lean"].append(await pooled(service.Builder(folder / "kept", 1), number))
        seconds["mistake"].append(await pooled(service.Builder(folder / "kept", 1), number, "n"))
    await with_header(folder / "kept")
    for number in range(1, repeat + 1):
        seconds["warm"].append(await pooled(builder, 1000 + number))
        seconds["cached"].append(await pooled(builder, 1000 + number))
    return {kind: statistics.median(values) for kind, values in seconds.items()}


async def with_header(cache: Path) -> None:
    """Ask so often with the same flags that their header is made, and wait for it."""
    builder = service.Builder(cache, 1)
    for number in range(service.HEADER_WORTH):
        await pooled(builder, 2000 + number)
    await asyncio.gather(*builder._background)  # noqa: SLF001 - nobody else waits for it


def main() -> None:
    """Measure, print a table, and with --json one last line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="builds of each kind (default 3)")
    parser.add_argument("--json", action="store_true", help="print the figures as one last line of JSON")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.repeat, Path(folder)))

    print(f"{'kind':>8}  {'seconds':>8}  times as fast as plain  (load {os.getloadavg()[0]:.1f})")
    for kind, value in found.items():
        print(f"{kind:>8}  {value:8.2f}  {found['plain'] / value:.1f}")
    if options.json:
        figures = {f"{kind}_s": round(value, 3) for kind, value in found.items()}
        ratios = {f"plain_over_{kind}": round(found["plain"] / value, 2) for kind, value in found.items()}
        print(json.dumps({"benchmark": "build", "repeat": options.repeat, **figures, **ratios}))


if __name__ == "__main__":
    main()
