"""Threads of this process that decode images: libjpeg-turbo, Pillow and the resizer let others run.

All readers of a process share them. A batch is dealt out in small parts and comes back in order, so
nothing depends on how many threads there are.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

from classact.data import announced

# Parts of a batch for each thread: the last ones to end leave the others idle for a part at most.
_PARTS = 4
# A part of fewer images costs more to hand over than it saves.
_LEAST = 2

_lock = threading.Lock()
_executor: Optional[ThreadPoolExecutor] = None
_wanted = 0


def cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Says how many threads decode in this process, from the next batch on.

    Args:
        count: of threads; 0: one for each processor that the process may use.
    """
    global _executor, _wanted
    with _lock:
        if count != _wanted and _executor is not None:
            # What it has been given it finishes.
            _executor.shutdown(wait=False)
            _executor = None
        _wanted = count


def threads() -> int:
    """How many threads decode in this process."""
    return _wanted or cpus()


def in_order[Item, Result](work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Does work on each item in the pool's threads; gives the results in the order of the items.

    Blocks for as long as the work does. Results that are not taken yet are held, all of
    them in the end. What the work raises is raised in the place of its result.

    Args:
        work: may be called by several threads at once.
        items: what on.
    """
    count = threads()
    size = max(_LEAST, -(-len(items) // (_PARTS * count)))
    if count == 1 or len(items) <= size:
        yield from map(work, items)
        return

    helping = announced.helping()

    def part(start: int) -> list[Result]:
        with helping():
            return [work(item) for item in items[start : start + size]]

    futures = _submit(part, range(0, len(items), size))
    try:
        for future in futures:
            yield from future.result()
    finally:
        # Left early, as after an error: nobody waits for the rest.
        for future in futures:
            future.cancel()


def _submit[Result](part: Callable[[int], list[Result]], starts: Sequence[int]) -> list[Future[list[Result]]]:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(threads(), thread_name_prefix="decoding")
        return [_executor.submit(part, start) for start in starts]
