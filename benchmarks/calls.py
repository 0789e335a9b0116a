"""How fast calls between two processes are: over a Unix socket, over TCP, over TCP with keys.

A server and a client are a process each. Printed for each way are small calls a second, one
after the other and by four threads; the milliseconds of a call that sends so many bytes of an
array and gets them back, and of one that gets 20 MB; and the processor time of small calls.

Command:
    python benchmarks/calls.py
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import figures
import numpy as np
import psutil
import replay_server
from figures import Figure

from classact import calls
from classact.launch.engines import ports

_WAYS = ("unix", "tcp", "tcp with keys")
_SIZES = {"64 KB": 2**16, "1 MB": 10**6, "20 MB": 2 * 10**7}
_THREADS = 4


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    seconds = 0.3 if options.quick else options.seconds
    found: list[Figure] = []
    for way in _WAYS:
        with _served(way) as (server, client):
            found += [
                Figure(f"{way}: {figure.name}", figure.value, figure.unit)
                for figure in _figures(server, client, seconds)
            ]
        print(figures.format_table(found), flush=True)
    return found


@contextlib.contextmanager
def _served(way: str) -> Iterator[tuple[psutil.Process, calls.Client]]:
    """A server in a process of its own, and its client here."""
    keys = calls.Keys.make() if way == "tcp with keys" else None
    with ports.LoopbackPorts() as free, tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/server" if way == "unix" else f"{ports.LOOPBACK}:{free()}"
        open_to_all = way == "tcp"
        with replay_server.process_of(_serve, address, keys, open_to_all) as pid:
            client = calls.Client(address, keys, timeout=60.0, open_to_all=open_to_all)
            yield psutil.Process(pid), client
            client.close()


def _serve(link: Connection, address: str, keys: calls.Keys | None, open_to_all: bool) -> None:
    large = np.random.default_rng(0).bytes(_SIZES["20 MB"])
    methods = {"echo": lambda value: value, "get": lambda: memoryview(large)}
    server = calls.Server(address, methods, keys, open_to_all=open_to_all)
    server.start()
    replay_server.until_closed(link)
    server.stop()


def _figures(server: psutil.Process, client: calls.Client, seconds: float) -> Iterator[Figure]:
    own = psutil.Process()
    before = _cpu(own), _cpu(server)
    times = _times(lambda: client.call("echo", [1]), seconds)
    count = len(times)
    yield Figure("small calls in sequence", count / sum(times), "1/s")
    yield Figure("  CPU of the caller", 1e6 * (_cpu(own) - before[0]) / count, "µs")
    yield Figure("  CPU of the server", 1e6 * (_cpu(server) - before[1]) / count, "µs")
    yield Figure(f"small calls by {_THREADS} threads", _together(client, seconds), "1/s")
    for name, size in _SIZES.items():
        array = np.random.default_rng(1).integers(0, 256, size, np.uint8)
        assert np.array_equal(client.call("echo", [array]), array)
        yield Figure(f"echo of {name}", 1e3 * statistics.median(_times(_echo(client, array), seconds)), "ms")
    got = _times(lambda: client.call("get"), seconds)
    yield Figure("answer of 20 MB", 1e3 * statistics.median(got), "ms")


def _echo(client: calls.Client, array: np.ndarray) -> Callable[[], Any]:
    return lambda: client.call("echo", [array])


def _times(call: Callable[[], Any], seconds: float) -> list[float]:
    call()
    found = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def _together(client: calls.Client, seconds: float) -> float:
    counts = [0] * _THREADS
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            client.call("echo", [1])
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    return made


if __name__ == "__main__":
    figures.run("calls", parser(), measure)
