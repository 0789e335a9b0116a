"""Memory is used again when nobody holds any of it, and not before."""

import gc

import jax
import numpy as np

from classact.replay import memory


def test_a_block_is_aligned_and_given_out_again_when_its_last_view_is_gone():
    blocks = memory.Blocks(1000)
    first = blocks.get()
    assert (first.dtype, first.shape) == (np.uint8, (1000,))
    assert first.ctypes.data % memory.ALIGNED == 0
    address, view = first.ctypes.data, first.reshape(10, 100)[3:5]
    first[:] = 7
    del first
    second = blocks.get()
    second[:] = 9
    assert second.ctypes.data != address and (view == 7).all()
    del view
    assert blocks.get().ctypes.data == address


def test_what_a_device_computes_on_is_in_use():
    blocks = memory.Blocks(1 << 16)
    block = blocks.get()
    block[:] = 7
    address, array = block.ctypes.data, jax.device_put(block)
    # Nothing is copied, else this test tests nothing.
    assert array.unsafe_buffer_pointer() == address
    del block
    other = blocks.get()
    other[:] = 9
    assert other.ctypes.data != address and int(array.sum()) == 7 << 16
    del array
    gc.collect()
    jax.device_put(0).block_until_ready()
    assert blocks.get().ctypes.data == address


def test_few_blocks_wait():
    blocks = memory.Blocks(64)
    for block in [blocks.get() for _ in range(9)]:
        del block
    gc.collect()
    assert len(blocks._waiting) == memory._WAITING
