"""The processes of `classact score`: started, listened to, and ended."""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from classact.launch.engines import accelerators, resources

_POLL_SECONDS = 0.5
# From asking a process to end to killing it.
_END_SECONDS = 5.0
_COMMAND = "classact.launch.commands.score_worker"


class WorkerError(RuntimeError):
    """A process has failed; one line says why.

    Attributes:
        is_input: whether bad input is why.
    """

    def __init__(self, said: str, is_input: bool) -> None:
        super().__init__(said)
        self.is_input = is_input


@dataclasses.dataclass(frozen=True)
class _Message:
    """A line of a process; None: it has ended."""

    worker: int
    said: Mapping[str, object] | None


def default_count() -> int:
    """How many processes are best here: one a GPU, or one a processor core that this one may use."""
    return len(accelerators.found().gpus) or len(os.sched_getaffinity(0))


def compute(
    folder: pathlib.Path,
    parts: Sequence[int],
    count: int,
    stop: threading.Event,
    told: Callable[[int], None],
) -> bool:
    """Computes parts of a scoring pass in processes of their own; blocks until then, or `stop`.

    Args:
        folder: of the score files, with their description.
        parts: numbers of those that are missing.
        count: how many processes, at least 1.
        stop: ends them; looked at twice a second.
        told: how many examples have been scored more.

    Returns:
        Whether all are done: False if stopped.

    Raises:
        WorkerError: if one has failed; the others are ended then.
    """
    count = min(count, len(parts))
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        workers = [
            # Every n-th part: those of a large set are alike in cost.
            stack.enter_context(_started(folder, parts[index::count], index, count, messages))
            for index in range(count)
        ]
        running = count
        while running and not stop.is_set():
            try:
                message = messages.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if message.said is None:
                if workers[message.worker].wait() != 0:
                    raise WorkerError(_last_line(_log(folder, message.worker)), False)
                running -= 1
            elif "error" in message.said:
                raise WorkerError(str(message.said["error"]), message.said.get("status") == 2)
            else:
                told(int(str(message.said["examples"])))
    for index in range(count):
        _log(folder, index).unlink(missing_ok=True)
    return not running


@contextlib.contextmanager
def _started(
    folder: pathlib.Path,
    parts: Sequence[int],
    index: int,
    count: int,
    messages: "queue.SimpleQueue[_Message]",
) -> Iterator["subprocess.Popen[str]"]:
    with open(_log(folder, index), "w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **_environment(index, count)},
            # Ctrl-C is this process's affair.
            start_new_session=True,
        )
    assert worker.stdin is not None and worker.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(json.dumps({"out": str(folder), "parts": list(parts)}) + "\n")
            worker.stdin.flush()
        threading.Thread(target=_listen, args=(worker, index, messages), daemon=True).start()
        yield worker
    finally:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()
        try:
            worker.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _listen(worker: "subprocess.Popen[str]", index: int, messages: "queue.SimpleQueue[_Message]") -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        # What a library prints is none of it.
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict):
                messages.put(_Message(index, said))
    messages.put(_Message(index, None))


def _environment(index: int, count: int) -> dict[str, str]:
    """One thread of a CPU each: with more of them sums may be made in another order."""
    gpus = accelerators.found().gpus
    if not gpus:
        return resources.thread_limits(1)
    each = -(-count // len(gpus))
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / each:.3f}"} if each > 1 else {}
    return {"CUDA_VISIBLE_DEVICES": str(gpus[index % len(gpus)]), **share}


def _log(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"_process-{index}.log"


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"a process has died ({lines[-1] if lines else 'it said nothing'}); its log: {log}"
