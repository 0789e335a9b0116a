import ctypes
import types

import jax
import jax.numpy as jnp
import pytest

from classact.nodes import heap


@pytest.fixture(autouse=True)
def forgotten():
    heap.give_back_after_compiling.cache_clear()
    yield
    heap.give_back_after_compiling.cache_clear()


def test_memory_goes_back_after_a_compilation_and_only_then(monkeypatch):
    trimmed = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: types.SimpleNamespace(malloc_trim=trimmed.append))
    # What is compiled here takes less, and may come from the cache.
    monkeypatch.setattr(heap, "_LONG_SECONDS", -1.0)
    heap.give_back_after_compiling()
    heap.give_back_after_compiling()
    compute = jax.jit(lambda x: x * 3 + 1)
    compute(jnp.zeros(7)).block_until_ready()
    seen = len(trimmed)
    assert seen and set(trimmed) == {0}
    compute(jnp.ones(7)).block_until_ready()
    # The ones alone may have been compiled, once.
    assert len(trimmed) <= seen + 1
    monkeypatch.setattr(heap, "_LONG_SECONDS", 1e6)
    jax.jit(lambda x: x * 5 - 1)(jnp.zeros(7)).block_until_ready()
    assert len(trimmed) <= seen + 1


def test_nothing_is_done_without_glibc(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: types.SimpleNamespace())
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", pytest.fail)
    heap.give_back_after_compiling()
