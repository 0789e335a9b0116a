"""Runs every benchmark, prints one table, and writes `runs/bench/bench.json`.

Commands:
    make bench
    python benchmarks/run_all.py --quick      (under 3 minutes on two free cores)

Each benchmark is a program of its own and can be run alone; see its docstring. The
learner's wait share and staleness are those of `cpu_per_update.py`'s distributed
runs (`wait_share.py` reads them from any run). The exit status is 1 if a benchmark
failed; a missed target is shown, and is not a failure.
"""

import argparse
import pathlib
import subprocess
import sys
import time

import figures
from figures import Figure

# Which benchmarks take the options that say on what data the demo's models run.
_BENCHMARKS = {
    "cpu_per_update": True,
    "inference_server": True,
    "replay_throughput": False,
    "calls": False,
    "memory": True,
}
_HERE = pathlib.Path(__file__).resolve().parent


def main() -> int:
    """Runs all; returns the exit status."""
    options = _options()
    figures.exit_on_sigterm()
    workdir = options.workdir.absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    found: list[Figure] = []
    failed = []
    for name, on_demo_data in _BENCHMARKS.items():
        started = time.monotonic()
        print(f"{name} …", flush=True)
        if _run(name, workdir, options, on_demo_data):
            part = figures.read(workdir / f"{name}.json")
            found += part
            print(f"{figures.format_table(part)}\n({time.monotonic() - started:.0f} s)\n", flush=True)
        else:
            failed.append(name)
            print(f"FAILED: see {workdir / f'{name}.log'}\n", flush=True)
    figures.write(workdir / "bench.json", found, quick=options.quick)
    print(f"Targets\n{figures.format_table([figure for figure in found if figure.verdict])}")
    print(f"All figures: {workdir / 'bench.json'}")
    return 1 if failed else 0


def _run(name: str, workdir: pathlib.Path, options: argparse.Namespace, on_demo_data: bool) -> bool:
    """Runs one benchmark in a process of its own, so that each starts from nothing."""
    (workdir / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, str(_HERE / f"{name}.py"), f"--workdir={workdir}"]
    if options.quick:
        command.append("--quick")
    if on_demo_data and options.train_data:
        command.append(f"--train-data={options.train_data}")
    if on_demo_data and options.patch_size:
        command.append(f"--patch-size={options.patch_size}")
    with (workdir / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait() == 0
        finally:
            # Asked, not killed: it has processes of its own to end.
            process.terminate()
            process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train-data", default="", help="source; default: the demo's")
    parser.add_argument("--patch-size", type=int, default=0, help="default: the demo's")
    figures.add_common_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
