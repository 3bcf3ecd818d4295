"""Which compiler and linker flags a candidate may pass: a list of what is allowed, never of what is forbidden.

A forgotten entry costs a candidate a clear message; a forgotten prohibition would cost the judge (`-fplugin`, `@file`,
`-wrapper`, `-specs`, `-B`, `-Wl,...`, `-o`, absolute `-I` and whatever the next compiler invents).
"""

import re
from collections.abc import Iterable

OPTIMISATION = frozenset({
    "-ffast-math", "-funroll-loops", "-funroll-all-loops", "-ftree-vectorize", "-fvect-cost-model=unlimited",
    "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only", "-fassociative-math", "-freciprocal-math",
    "-funsafe-math-optimizations", "-fno-signed-zeros", "-fno-fast-math", "-ffp-contract=fast", "-ffp-contract=off",
    "-fno-strict-aliasing", "-fstrict-aliasing", "-fomit-frame-pointer", "-finline-functions", "-fno-plt",
})  # fmt: skip
CODE = frozenset({
    "-fPIC", "-fpic", "-fopenmp", "-fopenmp-simd", "-pthread", "-fvisibility=hidden", "-fvisibility-inlines-hidden",
    "-fexceptions", "-fno-rtti", "-frtti", "-fdiagnostics-color=always", "-fdiagnostics-color=never", "-g", "-g0",
    "-g1", "-g2", "-g3", "-ggdb", "-w", "-pedantic", "-shared", "-I.",
})  # fmt: skip
PATTERNS = tuple(map(re.compile, (
    r"-O(0|1|2|3|s|g|fast)?",
    r"-std=(c|gnu)\+\+(11|14|1y|17|1z|20|2a|23|2b)",
    r"-m(arch|tune)=[a-z0-9.+-]{1,40}",
    r"-m(no-)?(avx|sse|ssse|fma|f16c|bmi|bmi2|popcnt|lzcnt|amx|movbe|adx)[a-z0-9.-]{0,20}",
    r"-mprefer-vector-width=(128|256|512)",
    r"-D[A-Za-z_][A-Za-z0-9_]{0,127}(=[^\n\0]{0,512})?",
    r"-U[A-Za-z_][A-Za-z0-9_]{0,127}",
    r"-W(no-)?[a-z][a-z0-9+-]{1,60}",
)))  # fmt: skip
LIBRARIES = frozenset({"-lpthread", "-lgomp", "-lm", "-ldl", "-lrt", "-lstdc++", "-pthread"})
TORCH_LIBRARIES = frozenset({"-lc10", "-ltorch", "-ltorch_cpu", "-ltorch_python"})
"""Linked anyway; accepted so that a candidate may say so."""
HINT = (
    "Allowed: -O*, -std=*, -march=native and other -m instruction sets, -fopenmp, -ffast-math, -funroll-loops, -g, "
    "-DNAME=VALUE, -W*, -lpthread, -lgomp, -lm. Remove the flag"
)
OLD_STANDARDS = re.compile(r"-std=(?:c|gnu)\+\+(11|14|1y|17|1z|20|2a)")


def refused(cflags: Iterable[str], ldflags: Iterable[str]) -> tuple[str, ...]:
    """Those flags that are not allowed, in order, each once."""
    bad = [flag for flag in cflags if not allowed_to_compile(flag)]
    bad += [flag for flag in ldflags if not allowed_to_link(flag)]
    return tuple(dict.fromkeys(bad))


def allowed_to_compile(flag: str) -> bool:
    return (
        flag in OPTIMISATION or flag in CODE or flag in LIBRARIES or any(rule.fullmatch(flag) for rule in PATTERNS)
    ) and not flag.startswith(("-Wl,", "-Wa,", "-Wp,"))


def allowed_to_link(flag: str) -> bool:
    return flag in TORCH_LIBRARIES or allowed_to_compile(flag)


def for_compiler(cflags: Iterable[str]) -> tuple[str, ...]:
    """What reaches the compiler: without libraries, and with no standard below torch's own.

    Torch's headers need C++20 since 2.10; a candidate that asks for C++17, as older tutorials do, means no harm.
    """
    kept = [flag for flag in cflags if flag not in LIBRARIES and flag not in {"-shared", "-I."}]
    return tuple(flag for flag in kept if not OLD_STANDARDS.fullmatch(flag))


def for_linker(cflags: Iterable[str], ldflags: Iterable[str]) -> tuple[str, ...]:
    """What reaches the linker. OpenMP and threads count wherever the candidate named them."""
    both = [*ldflags, *(flag for flag in cflags if flag in LIBRARIES or flag == "-fopenmp")]
    wanted = [flag for flag in both if flag in LIBRARIES or flag == "-fopenmp"]
    return tuple(dict.fromkeys(wanted))


def for_header(cflags: Iterable[str]) -> tuple[str, ...]:
    """What a precompiled header depends on: everything but warnings and macros, sorted so that order is no matter.

    Macros are left out on purpose: the compiler itself refuses a precompiled header that a macro would change.
    """
    return tuple(sorted({flag for flag in for_compiler(cflags) if not flag.startswith(("-D", "-U", "-W", "-w"))}))
