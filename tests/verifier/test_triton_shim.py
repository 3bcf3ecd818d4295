"""Interpreted Triton does what a GPU does: bfloat16, libdevice, autotune and launch, each against torch."""

import math

import numpy as np
import pytest
import torch

from kernelverify.guest import triton_shim

pytestmark = pytest.mark.needs("linux")

HEAD = """\
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

"""
ELEMENTWISE = """
@triton.jit
def kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(out_ptr + at, {expression})


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        out = torch.empty(x.shape, dtype={out})
        kernel[(1,)](x, y, out, N=x.numel())
        return out
"""
WHOLE = """
@triton.jit
def kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :])
    {statement}


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.{out}
        kernel[(1,)](x, out, N=x.shape[0])
        return out
"""
ROWS = "tl.store(out_ptr + tl.arange(0, N), {})"
SQUARE = "tl.store(out_ptr + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :], {})"


@pytest.fixture
def elementwise(guest):
    """The value of an expression of `x` and `y` in a kernel."""

    def value(expression, x, y=None, out=torch.float32):
        source = HEAD + ELEMENTWISE.format(expression=expression, out=out)
        ran = guest(source, [x, x if y is None else y], torch.empty(x.shape, dtype=out))
        assert hasattr(ran, "outputs"), ran
        return ran.outputs[0]

    return value


@pytest.fixture
def whole(guest):
    """What a statement on a square block `x` stores into `out`."""

    def stored(statement, x, out, like):
        ran = guest(HEAD + WHOLE.format(statement=statement, out=out), [x], like)
        assert hasattr(ran, "outputs"), ran
        return ran.outputs[0]

    return stored


def _bf16(count=64, seed=3):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


# ---- bfloat16 ----


def test_widening_is_exact_for_every_bit_pattern():
    bits = np.arange(1 << 16, dtype=np.uint16)

    wide = torch.from_numpy(triton_shim.widen(bits))

    torch.testing.assert_close(
        wide, torch.from_numpy(bits).view(torch.bfloat16).float(), rtol=0, atol=0, equal_nan=True
    )


def test_narrowing_rounds_to_nearest_even_like_torch():
    """All exponents, both signs, ties, overflow to infinity, subnormals, infinities and NaN."""
    upper = torch.arange(1 << 16, dtype=torch.int32) << 16
    values = torch.cat([(upper | low).view(torch.float32) for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])

    narrowed = torch.from_numpy(triton_shim.narrow(values.numpy())).view(torch.bfloat16)

    torch.testing.assert_close(narrowed, values.to(torch.bfloat16), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("expression", "torchs"),
    [
        ("x + y", lambda x, y: x + y),
        ("x - y", lambda x, y: x - y),
        ("x * y", lambda x, y: x * y),
        ("x / y", lambda x, y: x / y),
        ("-x", lambda x, _: -x),
        ("x * 3", lambda x, _: x * 3),
        ("tl.abs(x)", lambda x, _: x.abs()),
        ("tl.maximum(x, y)", torch.maximum),
        ("tl.where(x > y, x, y)", torch.maximum),
        ("tl.clamp(x, -0.5, 0.5)", lambda x, _: x.clamp(-0.5, 0.5)),
        ("tl.clamp(x, -0.5, 0.5, propagate_nan=tl.PropagateNan.ALL)", lambda x, _: x.clamp(-0.5, 0.5)),
        ("tl.fma(x, y, x)", lambda x, y: (x.float() * y.float() + x.float()).bfloat16()),
    ],
)
def test_bfloat16_arithmetic_is_on_values(elementwise, expression, torchs):
    x, y = _bf16(seed=1), _bf16(seed=2)

    result = elementwise(expression, x, y, torch.bfloat16)

    assert torch.equal(result, torchs(x, y))


def test_bfloat16_comparisons_are_on_values(elementwise):
    x, y = _bf16(seed=1), _bf16(seed=2)

    smaller = elementwise("x < y", x, y, torch.bool)

    assert torch.equal(smaller, x < y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int32], ids=str)
def test_casts_from_bfloat16_keep_the_value(elementwise, dtype):
    x = _bf16() * 10

    assert torch.equal(elementwise(f"x.to(tl.{_name(dtype)})", x, out=dtype), x.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int32], ids=str)
def test_casts_to_bfloat16_round(elementwise, dtype):
    x = (torch.randn(64) * 1000).to(dtype)

    assert torch.equal(elementwise("x.to(tl.bfloat16)", x, out=torch.bfloat16), x.to(torch.bfloat16))


def test_a_cast_to_bfloat16_rounds_as_it_is_told(elementwise):
    x = torch.tensor([1 + 2**-8 + 2**-9, -1 - 2**-8 - 2**-9, 1 + 2**-8, 2**-133, math.inf, -math.inf, 0.0, -0.0])
    cast = "tl.cast(x, tl.bfloat16, fp_downcast_rounding='{}')"

    nearest = elementwise(cast.format("rtne"), x, out=torch.bfloat16)
    toward_zero = elementwise(cast.format("rtz"), x, out=torch.bfloat16)

    assert torch.equal(nearest, x.to(torch.bfloat16))
    assert toward_zero.tolist() == [1, -1, 1, 2**-133, math.inf, -math.inf, 0, 0]


@pytest.mark.parametrize("function", ["exp", "log", "sqrt", "sigmoid", "sin"])
def test_bfloat16_functions_by_way_of_float32_are_within_an_ulp(elementwise, function):
    x = _bf16().abs() + 0.25

    result = elementwise(f"tl.{function}(x.to(tl.float32))", x, out=x.dtype)

    torch.testing.assert_close(result, getattr(torch, function)(x.float()).bfloat16(), rtol=2**-7, atol=0)


@pytest.mark.parametrize(
    ("reduction", "torchs"),
    [
        ("tl.sum(x, axis=1)", lambda x: x.float().sum(1)),
        ("tl.max(x, axis=1)", lambda x: x.amax(1).float()),
        ("tl.min(x, axis=1)", lambda x: x.amin(1).float()),
    ],
)
def test_reductions_of_bfloat16_are_on_values(whole, reduction, torchs):
    x = _bf16(256).view(16, 16)

    result = whole(ROWS.format(reduction), x, "empty(16, dtype=x.dtype)", x[0])

    torch.testing.assert_close(result, torchs(x).bfloat16(), rtol=2**-7, atol=2**-7)


def test_the_place_of_the_largest_bfloat16_is_an_integer(whole):
    x = _bf16(256).view(16, 16)

    result = whole(ROWS.format("tl.argmax(x, axis=1)"), x, "empty(16, dtype=torch.int32)", torch.empty(16).int())

    assert torch.equal(result, x.argmax(1).int())


def test_scans_of_bfloat16_are_on_values(whole):
    x = torch.randint(-4, 5, (16, 16)).to(torch.bfloat16)

    result = whole(SQUARE.format("tl.cumsum(x, axis=1)"), x, "empty_like(x)", x)

    assert torch.equal(result, x.cumsum(1))


def test_a_product_of_bfloat16_blocks_accumulates_in_float32(whole):
    x = _bf16(256).view(16, 16)

    result = whole(SQUARE.format("tl.dot(x, x)"), x, "empty(16, 16)", torch.empty(16, 16))

    torch.testing.assert_close(result, x.float() @ x.float())


def test_atomic_additions_of_bfloat16_add_values_where_the_mask_is_set(whole):
    x = torch.ones(16, 16, dtype=torch.bfloat16)
    below = "tl.arange(0, N)[:, None] < tl.arange(0, N)[None, :]"
    add = f"tl.atomic_add(out_ptr + tl.arange(0, N)[None, :] + tl.zeros([N, 1], tl.int32), x * 1.5, mask={below})"

    result = whole(add, x, "zeros(16, dtype=x.dtype)", x[0])

    assert result.tolist() == [1.5 * i for i in range(16)]


def _name(dtype):
    return str(dtype).removeprefix("torch.")


# ---- libdevice ----

UNARY = {
    **{n: getattr(torch, n) for n in ("abs", "acos", "asin", "atan", "asinh", "atanh", "ceil", "cos", "cosh", "exp")},
    **{n: getattr(torch, n) for n in ("exp2", "expm1", "floor", "log", "log10", "log1p", "log2", "rsqrt", "sin")},
    **{n: getattr(torch, n) for n in ("sinh", "sqrt", "tan", "tanh", "trunc", "erf", "erfc", "erfinv", "lgamma")},
    "acosh": torch.acosh,
    "cbrt": lambda x: x.pow(1 / 3),
    "cospi": lambda x: torch.cos(math.pi * x),
    "cyl_bessel_i0": torch.special.i0,
    "cyl_bessel_i1": torch.special.i1,
    "erfcx": torch.special.erfcx,
    "exp10": lambda x: 10**x,
    "fast_expf": torch.exp,
    "j0": torch.special.bessel_j0,
    "j1": torch.special.bessel_j1,
    "nearbyint": torch.round,
    "normcdf": torch.special.ndtr,
    "normcdfinv": torch.special.ndtri,
    "rcbrt": lambda x: x.pow(-1 / 3),
    "rint": torch.round,
    "round": lambda x: torch.floor(x + 0.5),
    "saturatef": lambda x: x.clamp(0, 1),
    "sinpi": lambda x: torch.sin(math.pi * x),
    "sqrt_rn": torch.sqrt,
    "rcp_rn": lambda x: 1 / x,
    "rsqrt_rn": torch.rsqrt,
}
BINARY = {
    "atan2": torch.atan2,
    "copysign": torch.copysign,
    "fast_dividef": torch.div,
    "fdim": lambda x, y: (x - y).clamp(min=0),
    "fmod": torch.fmod,
    "hypot": torch.hypot,
    "nextafter": torch.nextafter,
    "pow": torch.pow,
    "add_rn": torch.add,
    "sub_rn": torch.sub,
    "mul_rn": torch.mul,
    "div_rn": torch.div,
}
PREDICATES = {"isnan": torch.isnan, "isinf": torch.isinf, "finitef": torch.isfinite, "signbit": torch.signbit}
SHIFTED = {"acosh"}
"""Functions of numbers from 1 on."""


@pytest.mark.parametrize("name", UNARY)
def test_libdevice_functions_of_one_number_are_torchs(elementwise, name):
    x = torch.rand(64) * 0.9 + (1.05 if name in SHIFTED else 0.05)

    result = elementwise(f"libdevice.{name}(x)", x)

    torch.testing.assert_close(result, UNARY[name](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_libdevice_functions_of_two_numbers_are_torchs(elementwise, name):
    x, y = torch.rand(64) + 0.1, torch.randn(64)

    result = elementwise(f"libdevice.{name}(x, y)", x, y)

    torch.testing.assert_close(result, BINARY[name](x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PREDICATES)
def test_libdevice_questions_are_answered_by_truth_values(elementwise, name):
    x = torch.tensor([0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, math.nan, 1e-42])

    result = elementwise(f"libdevice.{name}(x) != 0", x, out=torch.bool)

    assert torch.equal(result, PREDICATES[name](x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_libdevice_multiplies_and_adds_in_the_dtype_of_its_numbers(elementwise, dtype):
    x, y = torch.rand(64, dtype=dtype), torch.rand(64, dtype=dtype)

    result = elementwise("libdevice.fma_rn(x, y, x)", x, y, dtype)

    torch.testing.assert_close(result, x * y + x)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float64], ids=str)
def test_libdevice_takes_other_dtypes_too(elementwise, dtype):
    x = torch.arange(-32, 32).to(dtype)

    assert torch.equal(elementwise("libdevice.abs(x)", x, out=dtype), x.abs())


def test_libdevice_scales_by_powers_of_two(elementwise):
    x, exponents = torch.randn(64), torch.arange(-32, 32, dtype=torch.int32)

    assert torch.equal(elementwise("libdevice.ldexp(x, y)", x, exponents), torch.ldexp(x, exponents))


def test_libdevice_is_nobodys_torch_operator(guest):
    source = HEAD + ELEMENTWISE.format(expression="libdevice.erf(x)", out="torch.float32")
    x = torch.rand(64)

    ran = guest(source, [x, x], x, count_ops_above=0)

    assert ran.torch_ops == {}


def test_what_libdevice_lacks_here_is_named(guest):
    source = HEAD + ELEMENTWISE.format(expression="libdevice.popc(x)", out="torch.int32")
    x = torch.arange(64, dtype=torch.int32)

    crash = guest(source, [x, x], x)

    assert "__nv_popc is not available" in crash.message


# ---- launches ----

AUTOTUNED = """
@triton.autotune(configs=[triton.Config({"BLOCK": b}) for b in (16, 32, 64)], key=["n"])
@triton.jit
def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, 2 * tl.load(x_ptr + at, mask=at < n), mask=at < n)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        kernel[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, out, x.numel())
        return out
"""
BENCHMARK = """
class ModelNew(torch.nn.Module):
    def forward(self, x):
        calls = []
        one = triton.testing.do_bench(lambda: calls.append(1), warmup=25, rep=100)
        three = triton.testing.do_bench(lambda: calls.append(1), quantiles=[0.5, 0.2, 0.8])
        return torch.tensor([float(one >= 0), float(len(three)), float(len(calls))])
"""
DEVICE = """
class ModelNew(torch.nn.Module):
    def forward(self, x):
        driver = triton.runtime.driver.active
        facts = driver.utils.get_device_properties(driver.get_current_device())
        assert driver.get_current_target().backend == "cuda"
        assert driver.get_active_torch_device() == x.device
        return torch.tensor([float(facts["multiprocessor_count"]), float(facts["warpSize"])])
"""


def test_an_autotuned_kernel_is_right_for_sizes_that_no_block_divides(guest):
    x = torch.randn(77)

    ran = guest(HEAD + AUTOTUNED, [x], x)

    assert torch.equal(ran.outputs[0], 2 * x)


def test_a_configuration_that_crashes_still_crashes(guest):
    x = torch.randn(77)

    crash = guest(HEAD + AUTOTUNED.replace("(16, 32, 64)", "(16, 24)"), [x], x)

    assert "power of 2" in crash.message


def test_a_benchmark_runs_its_function_once_and_gives_what_was_asked_for(guest):
    ran = guest(HEAD + BENCHMARK, [torch.ones(3)], torch.ones(3))

    assert ran.outputs[0].tolist() == [1, 3, 2]


def test_a_kernel_can_size_its_grid_by_the_device(guest):
    ran = guest(HEAD + DEVICE, [torch.ones(2)], torch.ones(2))

    assert ran.outputs[0][0] >= 1
    assert ran.outputs[0][1] == 32


@pytest.mark.parametrize(
    ("expression", "value"), [("tl.exp(x)", math.inf), ("x / (x - x)", math.inf), ("tl.sqrt(-x)", math.nan)]
)
def test_overflow_and_nan_are_silent_as_on_a_gpu(guest, expression, value):
    """numpy's warnings would be errors in this candidate."""
    x = torch.full((16,), 1000.0)
    strict = "import warnings\nwarnings.simplefilter('error')\n"

    ran = guest(strict + HEAD + ELEMENTWISE.format(expression=expression, out="torch.float32"), [x, x], x)

    assert str(ran.outputs[0].unique()[0].item()) == str(value)


def test_a_long_list_of_configurations_may_use_up_a_time_allowance_only():
    now = iter([0.0, 2.0, 2.0, 5.0, 5.0, 6.0])
    calls = []
    bench = triton_shim.Benchmarker(5.0, clock=lambda: next(now))

    times = [bench(lambda: calls.append(1)) for _ in range(4)]

    assert times == [2000, 3000, math.inf, math.inf]
    assert len(calls) == 2


def test_triton_that_was_imported_to_compile_is_refused(monkeypatch):
    """This process imported it so."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    with pytest.raises(triton_shim.NotInterpretingError, match="set TRITON_INTERPRET=1"):
        triton_shim.install()
