"""Words that set chains apart: approaches for a first kernel, methods for a faster one. Data, no decisions.

The model knows these techniques; naming one makes eight chains try eight things instead of one thing eight times.
"""

from collections.abc import Mapping

FREE = ""
"""The model follows its own judgement."""

APPROACHES: Mapping[str, tuple[str, ...]] = {
    "cuda": (
        FREE,
        (
            "Fuse everything into one kernel, so that every input element is read from memory once and no intermediate "
            "tensor is written."
        ),
        (
            "Let one block (or program) own one row or tile, keep the intermediate values in registers, and combine "
            "partial results by shuffles or shared memory."
        ),
        "Use an online (single-pass) algorithm where a reduction would need several passes over the data.",
        "Make memory access wide and coalesced: 16 bytes a thread, neighbouring threads on neighbouring addresses.",
        "Tile the work through shared memory, and overlap loads of the next tile with arithmetic on this one.",
        "Split long reductions over several blocks and combine them in a second, small step.",
        (
            "Simplify the mathematics first (merge constants, reorder linear steps, drop what cancels), then write the "
            "kernel for what remains."
        ),
    ),
    "cpu": (
        FREE,
        (
            "Fuse everything into one pass, so that every input element is read from memory once and no intermediate "
            "tensor is written."
        ),
        "Split the rows over the threads with at::parallel_for, and keep each row's intermediate values in cache.",
        "Use an online (single-pass) algorithm where a reduction would need several passes over the data.",
        (
            "Write the inner loops so that the compiler vectorises them: contiguous pointers, no branches, several "
            "independent accumulators."
        ),
        "Block the work for the L1 and L2 caches, so that data is used again before it leaves them.",
        "Recompute cheap values instead of storing them.",
        (
            "Simplify the mathematics first (merge constants, reorder linear steps, drop what cancels), then write the "
            "loops for what remains."
        ),
    ),
}
"""By device: how a first kernel may be approached."""

METHODS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cuda": {
        "memory": (
            "Read every input element once: fuse passes that read the same data again.",
            "Widen loads and stores to 16 bytes a thread and make them coalesced.",
            "Choose larger tiles so that more loads are in flight (more bytes per thread, more stages).",
            "Keep intermediates in registers or shared memory; write only the final result.",
        ),
        "compute": (
            "Use the matrix units (tl.dot, mma) for the products, in the precision that the tolerance needs.",
            "Unroll the inner loop and keep several independent accumulators to hide latency.",
            (
                "Replace expensive functions by cheaper ones with enough accuracy (exp2 for exp, multiplication by a "
                "reciprocal for division)."
            ),
            "Tune tile sizes and warps for occupancy: fewer registers a thread, or more work a thread.",
        ),
        "launch": (
            "Do everything in one launch, and as little as possible in Python before it.",
            (
                "Avoid allocations, synchronisation and shape arithmetic on the path of `forward`; prepare in "
                "`__init__` what does not depend on the inputs."
            ),
            "Choose the grid so that one wave of blocks covers the work.",
        ),
    },
    "cpu": {
        "memory": (
            "Read every input element once: fuse passes that read the same data again.",
            "Write results with the fewest passes over the output; avoid temporaries as large as the input.",
            "Give each thread a contiguous part of memory, in pieces that fit its caches.",
            "Prefetch by simple linear access: no strides, no gathers in the inner loop.",
        ),
        "compute": (
            (
                "Help the compiler to vectorise: `#pragma omp simd`, `-O3 -march=native -ffast-math` where the "
                "tolerance allows, `__restrict` pointers, at::vec::Vectorized."
            ),
            "Keep several independent accumulators in the reduction, so that additions overlap.",
            "Replace expensive functions by polynomials or by exp2 with enough accuracy, vectorised.",
            "Balance the work over the threads: pieces small enough that none waits for the last.",
        ),
        "launch": (
            "Do everything in one call into C++, and as little as possible in Python before it.",
            (
                "Avoid allocations and checks on the path of `forward`; prepare in `__init__` what does not depend on "
                "the inputs."
            ),
            "Raise the grain size, so that starting threads does not cost more than the work.",
        ),
    },
}
"""By device and by what bounds the kernel: what may make it faster."""
