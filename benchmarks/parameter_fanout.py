"""What it costs a learner to give its parameters to many inference servers.

One process is the learner's end: a `ParameterStore` behind a server of calls, to which a scorer's
parameters are offered at a fixed rate (`--updates` a second), as after each update. 1, 2,
4 and 8 client processes follow them as inference servers do, but leave the bytes as they
are. Printed are, for each number of clients: versions that a client gets a second,
what leaves the learner's process a second, and its CPU time for that.

Commands:
    python benchmarks/parameter_fanout.py           over a Unix socket, as on one machine
    python benchmarks/parameter_fanout.py --tcp     over TCP with keys, as between hosts
"""

import argparse
import contextlib
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import figures
import numpy as np
import psutil
import replay_server
import training_runs
from figures import Figure

from classact import calls
from classact.launch.engines import ports

_CLIENTS = (1, 2, 4, 8)


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    found: list[Figure] = []
    megabytes, seconds = (1.0, 2.0) if options.quick else (options.megabytes, options.seconds)
    for clients in _CLIENTS:
        counts = [multiprocessing.get_context("spawn").Value("L", 0) for _ in range(clients)]
        with (
            ports.LoopbackPorts() as free,
            tempfile.TemporaryDirectory() as folder,
            contextlib.ExitStack() as running,
        ):
            address = f"{ports.LOOPBACK}:{free()}" if options.tcp else f"unix:{folder}/learner"
            keys = calls.Keys.make() if options.tcp else None
            offers = (address, keys, megabytes, options.updates)
            server = psutil.Process(running.enter_context(replay_server.process_of(_offer, *offers)))
            for count in counts:
                running.enter_context(replay_server.process_of(_follow, address, keys, count))
            training_runs.sleep_until(time.monotonic() + seconds / 2)
            found += _figures(server, counts, megabytes, seconds)
            print(figures.format_table(found), flush=True)
    return found


def _figures(server: psutil.Process, counts: list[Any], megabytes: float, seconds: float) -> list[Figure]:
    cpu, before, began = _cpu(server), sum(count.value for count in counts), time.monotonic()
    training_runs.sleep_until(began + seconds)
    elapsed = time.monotonic() - began
    sent = (sum(count.value for count in counts) - before) * megabytes
    spent = _cpu(server) - cpu
    return [
        Figure(f"{len(counts)} clients: versions to each", sent / megabytes / elapsed / len(counts), "1/s"),
        Figure("  leaves the learner", sent / elapsed, "MB/s"),
        Figure("  the learner's CPU", 1e3 * spent / sent if sent else 0.0, "CPU-ms/MB"),
    ]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _offer(link: Connection, address: str, keys: calls.Keys | None, megabytes: float, updates: float) -> None:
    """Serves parameters of that size, a new version so often a second."""
    from classact.nodes import parameters

    store = parameters.ParameterStore()
    weights = {"params": {"w": np.zeros(int(megabytes * 1e6 / 4), np.float32)}, "state": {}}

    def get_parameters(names: list[str], newer_than: int, timeout: float, follow: bool) -> Any:
        found = store.get(tuple(names), newer_than, timeout, follow)
        return None if found is None else (found.step, found.finished, dict(found.payload))

    store.offer(0, {"online": weights})
    methods = {"get_parameters": get_parameters, "get_step": lambda: store.step}
    server = calls.Server(address, methods, keys, threads=32)
    server.start()
    link.send("ready")
    step = 0
    # Closed, or written to, by who measures: the end.
    while not link.poll(1.0 / updates):
        step += 1
        store.offer(step, {"online": weights})
    store.close()
    server.stop()


def _follow(link: Connection, address: str, keys: calls.Keys | None, count: Any) -> None:
    """Asks for each new version and counts them."""
    from classact.launch.assembly import rpc

    learner = rpc.LearnerClient(calls.Client(address, keys, timeout=30.0))
    step = -1
    link.send("ready")
    while not link.poll(0):
        response = learner.get_parameters(("online",), step, 1.0, follow=True)
        if response is not None and response[2]:
            step = response[0]
            count.value += 1


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # Two ViT-Ti: the online model alone moves if the reference is fixed.
    made.add_argument("--megabytes", type=float, default=23.0, help="of parameters; a ViT-Ti has 23")
    made.add_argument("--updates", type=float, default=5.0, help="versions that are offered a second")
    made.add_argument("--tcp", action="store_true", help="over TCP, encrypted")
    made.add_argument("--seconds", type=float, default=15.0, help="length of each measurement")
    return made


if __name__ == "__main__":
    figures.run("parameter_fanout", parser(), measure)
