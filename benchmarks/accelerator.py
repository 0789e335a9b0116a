"""What an accelerator makes of training and of scoring, in five minutes, with made-up images.

Needs neither Reverb nor Launchpad: jax, flax, optax and numpy, and classact's own files. It trains a
ViT-B/16 at 224² in bfloat16 with the functions of `--launch=synchronous` (`nodes/synchronous.py`,
`training.py`, `scoring.py`), on one device:

- `update`: the learner's update of b images, which lie on the device;
- for each scorer `score`: policy classact, two forward passes over B = b / (1 − filter_ratio) images;
  `update + online`: the learner's update and that of the online model; `loop`: the whole of it with images
  from the host, as `--launch=synchronous` does it, and which share of the time is not the device's,
  1 − (score + update + online) / loop;
- for each scorer `forward`: one forward pass, at growing batches.

Times are medians of repeats after a warm-up, each of several calls whose last result is waited for. MFU
is the rate of useful operations, 2 per multiply-accumulate (`models/cost.py`, three forward passes for an
update, nothing for recomputation), by the device's peak rate, which follows from its name or is given.
Memory is what the compiled function needs; that of the process is the allocator's own peak.

Commands:
    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --batch-size=64 --sweep=256,1024        (for a device of 24 GB)
    python benchmarks/accelerator.py --learner=vit_mu_1_1 --scorers=vit_mu_1_1 --image-size=32 \
        --patch-size=8 --batch-size=8 --sweep=8,16 --seconds=60              (shows on a CPU that it works)

What is not measured when `--seconds` are over is left out, and listed. The table goes to the standard output,
everything to `--out` as JSON.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from accelerator_parts import Benchmark, Sizes
from device_timing import Budget
from jax.experimental.compilation_cache import compilation_cache

# The time was over in the middle of a part.
_CUT_STATUS = 3
# To write what there is.
_WRITING_SECONDS = 5.0
_COLUMNS = (
    ("batch", 6),
    ("ms", 10),
    ("examples/s", 11),
    ("MFU", 7),
    ("GB", 7),
    ("compile s", 9),
)


def table(report: Mapping[str, Any]) -> str:
    """Lays a report out in lines."""
    peak, count = report["peak_tflops"], report["devices"]
    rate = f"peak {peak:g} TFLOP/s" if peak else "peak unknown (--peak-tflops gives MFU)"
    titles = " ".join(f"{name:>{width}}" for name, width in _COLUMNS)
    lines = [
        f"{report['device']} ({report['platform']}), jax {report['jax']}, one of {count} devices, {rate}",
        f"{'part':<16} {'model':<12} {titles}",
    ]
    for row in report["rows"]:
        numbers = (
            str(row["batch"]),
            _number(row["seconds"], 1e3, ".2f"),
            _number(row["examples_per_second"], 1, ",.0f"),
            _number(row["mfu"], 1, ".1%"),
            _number(row["memory_bytes"], 1e-9, ".2f"),
            _number(row["compile_seconds"], 1, ".1f"),
        )
        words = " ".join(f"{text:>{width}}" for text, (_, width) in zip(numbers, _COLUMNS, strict=True))
        share = row["not_the_devices"]
        remark = row["note"] if share is None else f"{share:.1%} of the time not the device's"
        lines.append(f"{row['part']:<16} {row['model']:<12} {words}  {remark}".rstrip())
    memory = report["process_memory"]
    if memory:
        limit = f" of {memory['bytes_limit'] / 1e9:.1f} GB" if "bytes_limit" in memory else ""
        lines.append(f"most memory of the process: {memory.get('peak_bytes_in_use', 0) / 1e9:.1f} GB{limit}")
    if report["left_out"]:
        lines.append(f"not measured, for want of time: {'; '.join(report['left_out'])}")
    return "\n".join(lines)


def _number(value: float | None, scale: float, form: str) -> str:
    return "–" if value is None else format(value * scale, form)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(description="Measures training and scoring on this machine's accelerator.")
    made.add_argument("--seconds", type=float, default=290.0, help="for all; the command ends by then")
    made.add_argument("--part-seconds", type=float, default=5.0, help="to time each part, compiled")
    made.add_argument("--learner", default="vit_b", help="a ViT of models/transformer.py")
    made.add_argument("--scorers", default="vit_ti,vit_mu_1_1", help="the same, joined by commas")
    made.add_argument("--image-size", type=int, default=224, help="pixels of a side")
    made.add_argument("--patch-size", type=int, default=16)
    made.add_argument("--classes", type=int, default=1000)
    made.add_argument("--batch-size", type=int, default=256, help="b, images of an update")
    made.add_argument("--filter-ratio", type=float, default=0.5)
    made.add_argument("--sweep", default="256,512,1024,2048,4096,8192,16384", help="batches of `forward`")
    made.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    made.add_argument("--remat", action="store_true", help="recompute the learner's activations")
    made.add_argument("--peak-tflops", type=float, help="of the device, instead of the table's")
    made.add_argument("--out", type=pathlib.Path, default=pathlib.Path("accelerator.json"))
    return made


def sizes_of(options: argparse.Namespace) -> Sizes:
    """The sizes that the options say."""
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Sizes)}
    return Sizes(
        **{
            **given,
            "scorers": tuple(filter(None, options.scorers.split(","))),
            "sweep": tuple(int(batch) for batch in options.sweep.split(",") if batch),
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the table and writes the JSON.

    Compilation cannot be interrupted. So when the time is over, another thread writes what there is, and ends
    the process.
    """
    options = parser().parse_args(arguments)
    started = time.monotonic()
    writing = threading.Lock()
    with _compilations_kept():
        benchmark = Benchmark(sizes_of(options), Budget(options.seconds - _WRITING_SECONDS))

        def finish(cut: str = "") -> None:
            report = {**benchmark.report(cut), "wall_seconds": time.monotonic() - started}
            options.out.write_text(json.dumps(report, indent=2) + "\n")
            print(table(report), flush=True)

        def cut_short() -> None:
            with writing:
                finish("the part that ran when the time was over")
                os._exit(_CUT_STATUS)

        timer = threading.Timer(options.seconds, cut_short)
        timer.daemon = True
        timer.start()
        try:
            benchmark.run()
        finally:
            # What was found before an error is worth as much.
            with writing:
                timer.cancel()
                finish()


@contextlib.contextmanager
def _compilations_kept() -> Iterator[None]:
    """Lets the loop, which compiles for itself, find what was compiled before it."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    with tempfile.TemporaryDirectory(prefix="classact-accelerator-") as folder:
        try:
            for name, value in zip(names, (folder, 0.0), strict=True):
                jax.config.update(name, value)
            yield
        finally:
            for name, value in zip(names, before, strict=True):
                jax.config.update(name, value)
            # It holds on to the folder.
            compilation_cache.reset_cache()


if __name__ == "__main__":
    main()
