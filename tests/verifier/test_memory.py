"""Tensors of every kind cross the border bit by bit, and whoever writes elsewhere is seen."""

import pytest
import torch

from kernelverify.host import memory
from kernelverify.host.memory import Region

DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float8_e4m3fn),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (4, 0, 2), (5, 7, 3)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_by_bit(dtype, shape):
    tensor = (torch.rand(shape) * 4).to(dtype)

    with Region.inputs([tensor]) as region:
        (copy,) = region.read_private()

    assert copy.dtype is dtype
    assert copy.shape == tensor.shape
    if tensor.numel():
        assert torch.equal(copy.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_strides_are_kept():
    tensor = torch.rand(4, 6).T

    with Region.inputs([tensor]) as region:
        (copy,) = region.read_private()

    assert copy.stride() == tensor.stride()
    assert torch.equal(copy, tensor)


def test_trees_come_back_as_they_were():
    tree = [torch.ones(2), {"a": (1, 2.5, None, "x"), "b": [torch.zeros(1), True]}, float("inf")]

    skeleton, tensors = memory.flatten(tree)
    back = memory.unflatten(skeleton, tensors)

    assert back[1]["a"] == (1, 2.5, None, "x")
    assert back[2] == float("inf")


def test_an_output_that_nobody_wrote_is_seen():
    with Region.outputs([torch.zeros(100)]) as region:
        copies = region.read_private()

        assert region.unwritten(copies) == [0]
        assert bool(copies[0].isnan().all())


def test_a_write_beyond_an_output_breaks_the_canaries():
    with Region.outputs([torch.zeros(8)]) as region:
        assert region.canaries_ok()
        region._bytes[region.layout[0]["offset"] + 32] = 7

        assert not region.canaries_ok()


def test_a_changed_input_is_named():
    with Region.inputs([torch.ones(3), torch.ones(3)]) as given, given.twin() as twin:
        twin.write([torch.ones(3), torch.zeros(3)])

        assert twin.changed(given) == [1]


def test_an_object_that_cannot_cross_is_refused_with_its_type():
    with pytest.raises(memory.TransportError, match="object"):
        memory.flatten([object()])
