"""The build pool with real compilers: the short way gives what torch's own gives, and never a false reject."""

import asyncio
import importlib.machinery
import importlib.util

import pytest

from kernelverify.build import service, toolchain
from kernelverify.build.compiler import MOST_OUTPUT, Workshop
from kernelverify.guest import build_shim

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(900)]

SCALE = """\
torch::Tensor scale(torch::Tensor x, torch::Tensor y) {
  TORCH_CHECK(x.sizes() == y.sizes(), "sizes differ: ", x.sizes(), " and ", y.sizes());
  auto out = torch::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) out.data_ptr<float>()[i] = x.data_ptr<float>()[i] * y.data_ptr<float>()[i];
  return out;
}
"""
MIXED = """
std::tuple<torch::Tensor, double> mixed(const torch::Tensor& x, std::optional<torch::Tensor> y, int64_t n, double e) {
  return {y ? x + *y : x * n, e};
}
"""
BY_HAND = 'PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("forward", &scale, "Scale."); m.def("again", &scale); }'
TORCH_ONLY = "bool gpu() { return torch::cuda::is_available(); }"
OWN_TYPE = "struct Shape { int rows; };\nint rows(Shape* s) { return s->rows; }"
FORCED = "// pybind11: no lean header can do\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def _message(name, source, functions, cflags=()):
    exported = build_shim.exports(functions)
    text = build_shim.compose([source], exported, headers=("torch/extension.h",))
    flags = {"cflags": list(cflags), "ldflags": []}
    return build_shim.request(name, {"main.cpp": text}, list(exported or ()), flags)


async def _build(cache, *args):
    builder = service.Builder(cache, 1)
    try:
        return await builder.build(_message(*args))
    finally:
        await builder.close()


def _import(name, path):
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path, loader=loader))
    loader.exec_module(module)
    return module


def _refusal(function, *arguments):
    with pytest.raises((TypeError, RuntimeError)) as caught:
        function(*arguments)
    # of torch's own errors the first line: below it stand addresses
    return type(caught.value), str(caught.value).partition("\nException raised")[0]


def _seen(module):
    """All that Python can see of the two functions."""
    import torch

    x, y = torch.ones(3), torch.full((3,), 2.0)
    results = [module.scale(x, y).tolist(), module.mixed(x, None, 4, 0.5)[0].tolist(), module.mixed(x, y, 4, 1)[1]]
    docs = [(f.__doc__, f.__name__, f.__module__) for f in (module.scale, module.mixed)]
    refused = [_refusal(module.scale, x), _refusal(module.scale, x, "y"), _refusal(module.scale, x, torch.ones(2))]
    return module.__name__, module.__doc__, results, docs, refused


async def test_the_short_way_gives_the_module_that_torchs_headers_give(cache):
    source, functions = SCALE + MIXED, ["scale", "mixed"]
    lean = await _build(cache, "same", source, functions, ["-O2"])
    plain = await _build(cache, "same", FORCED + source, functions, ["-O2"])

    assert (lean.ok, lean.lean, plain.ok, plain.lean) == (True, True, True, False), lean.errors + plain.errors
    assert _seen(_import("same", lean.path)) == _seen(_import("same", plain.path))


async def test_a_module_bound_by_hand_takes_the_short_way_too(cache):
    import torch

    built = await _build(cache, "by_hand", SCALE + BY_HAND, None)

    module = _import("by_hand", built.path)
    assert built.lean
    assert "Scale." in module.forward.__doc__
    assert module.again(torch.ones(2), torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize(("source", "function"), [(TORCH_ONLY, "gpu"), (OWN_TYPE, "rows")])
async def test_what_the_lean_header_lacks_is_built_with_torchs(cache, source, function):
    built = await _build(cache, f"full_{function}", source, [function])

    assert built.ok, built.errors
    assert not built.lean
    assert hasattr(_import(f"full_{function}", built.path), function)


async def test_a_candidates_own_mistake_is_shown_with_its_line(cache):
    built = await _build(cache, "wrong", SCALE.replace("x.numel()", "total"), ["scale"])

    assert not built.ok
    assert [(e.file, e.line) for e in built.errors] == [("cpp_sources[0]", 4)]
    assert "total" in built.errors[0].message


async def test_flags_that_come_again_get_a_header_that_gcc_accepts_for_any_module(cache, monkeypatch):
    monkeypatch.setattr(service, "HEADER_WORTH", 1)
    flags, tools = ("-O1", "-ffast-math"), toolchain.find()
    builder = service.Builder(cache, 1)
    first = await builder.build(_message("first", SCALE, ["scale"], flags))
    await asyncio.gather(*builder._background)

    second = await builder.build(_message("second", SCALE, ["scale"], [*flags[::-1], "-DROWS=4"]))
    place = next((cache / "headers").iterdir())
    with Workshop(tools, [str(place)]) as shop:
        shop.write("main.cpp", '#include "torch/extension.h"\nint x = ROWS;\n')
        own = ["-DTORCH_EXTENSION_NAME=third", "-DROWS=4", *flags]
        command = [tools.compiler, f"-I{place}", *service._common(tools), *own, "-H", "-Winvalid-pch"]
        used = await shop.run([*command, "-c", "main.cpp", "-o", "main.o"])

    assert first.lean
    assert second.lean
    assert used.startswith("! ")


async def test_identical_builds_run_once_and_stay(cache):
    builder = service.Builder(cache, 2)
    message = _message("once", SCALE, ["scale"])

    both = await asyncio.gather(builder.build(message), builder.build(message))
    again = await service.Builder(cache, 1).build(message)

    assert both[0] is both[1]
    assert again.cache_hit
    assert again.path == both[0].path


async def test_prepared_bindings_are_there_before_the_first_build(tmp_path):
    builder = service.Builder(tmp_path, 1)

    builder.prepare()
    await asyncio.gather(*builder._background)

    assert [p.stat().st_mode & 0o222 for p in tmp_path.glob("*/bindings.o")] == [0]


async def test_a_tool_may_print_without_end_and_the_beginning_is_kept():
    with Workshop(toolchain.find()) as shop:
        printed = await shop.run(["head", "-c", "50000000", "/dev/zero"])

    assert len(printed) == MOST_OUTPUT
