"""The steps of a Slurm job as tasks of a run: started, watched, ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from classact.launch.engines.crash_report import describe_exit
from classact.launch.engines.events import Asked, Crash, Ended
from classact.launch.engines.on_host import TOLD, Finished
from classact.launch.engines.outcome import LaunchError, TaskEnd
from classact.launch.engines.supervisor import Tasks
from classact.launch.engines.task import UNWRITABLE_STATUS, Task

# What `on_host` may take to tell how a task ended that it had to end itself.
_TELL_SECONDS = 4.0
# How long srun may take to hear of an end that the host has told already.
_HEAR_SECONDS = 10.0
# How long srun may take to end a step that is killed.
_REAP_SECONDS = 15.0
# Of the job's environment, what srun must know. The rest are the batch script's own
# options, which srun would take for the step's.
_KEPT = ("SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_WORKING_CLUSTER")


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for `srun`: without the options of the job, which are not the step's."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("SLURM_") or name in _KEPT or "_HET_GROUP_" in name or name == "SLURM_HET_SIZE"
    }


class Steps(Tasks):
    """The steps of one run."""

    # Hosts keep the notice; a step is ended only if its host did not end the task.
    tell_seconds = _TELL_SECONDS
    reap_seconds = _REAP_SECONDS

    def __init__(
        self,
        tasks: Sequence[Task],
        commands: Mapping[str, Sequence[str]],
        awaited: Collection[str],
        notice: float,
        job_hosts: Callable[[], Collection[str]],
        events: queue.SimpleQueue[Any],
    ) -> None:
        """Starts nothing.

        Args:
          tasks: what to run, placed on hosts of the job.
          commands: the `srun` of each by its name, up to what it runs.
          awaited: names of the tasks whose success is the run's.
          notice: seconds from asking tasks to stop to ending them.
          job_hosts: asks Slurm which hosts the job has; may block, and raise LaunchError.
          events: takes what happens to the tasks.
        """
        self._events = events
        self._tasks = {task.name: task for task in tasks}
        self._commands = commands
        self._job_hosts = job_hosts
        # Asked to stop by somebody else, they hold on to leave the awaited ones time.
        self._seconds = {name: (notice, 0.0 if name in awaited else notice / 2) for name in self._tasks}
        self._steps: dict[str, _Step] = {}

    def start(self, name: str) -> None:
        """Starts a step; another one of the same task waits until what the one before had is free."""
        before = self._steps.get(name)
        if before is not None:
            before.close()
        life = 0 if before is None else before.life + 1
        step = _Step(self._tasks[name], life, self._commands[name], self._seconds[name])
        step.watch(self._events, self._job_hosts)
        self._steps[name] = step

    def stop(self, names: Collection[str], notice: float) -> None:
        """Sends the notice, and the end of their input, to the hosts of tasks."""
        for name in names:
            self._steps[name].stop(notice)

    def kill(self, names: Collection[str]) -> None:
        """Ends the steps."""
        for name in names:
            self._steps[name].kill()

    def end_of(self, name: str) -> TaskEnd | None:
        """What the host told; None if it was lost."""
        return self._steps[name].end

    def look(self, names: Collection[str]) -> None:
        """Looks for ends that hosts have told, and srun has not."""
        for name in names:
            self._steps[name].check()

    def close(self) -> None:
        """Ends what still runs here of steps that could not be ended."""
        for step in self._steps.values():
            step.close()


class _Step:
    """A life of a task as a step. Its own thread puts on the queue what its `srun` says, and its end."""

    def __init__(
        self,
        task: Task,
        life: int,
        command: Sequence[str],
        seconds: tuple[float, float],
    ) -> None:
        self.end: TaskEnd | None = None
        self.life = life
        self._task = task
        self._told_at: float | None = None
        self._deaf = False
        # Each life has files of its own: what an earlier one left on a host that was
        # lost, or an earlier start of the job, may write its end yet.
        saved = task.data_file.with_name(f"{task.name}.{life}.json")
        self._end_path = saved.with_suffix(".end.json")
        self._end_path.unlink(missing_ok=True)
        self._files = (saved, self._end_path)
        task.save(saved)
        on_host = [sys.executable, "-m", "classact.launch.engines.on_host", saved, self._end_path, *seconds]
        self._srun = subprocess.Popen(
            [*command, *map(str, on_host)],
            env=step_environment(os.environ),
            # Held open as long as the step is to run.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal must reach the launcher alone.
            start_new_session=True,
        )

    def watch(self, events: queue.SimpleQueue[Any], job_hosts: Callable[[], Collection[str]]) -> None:
        """Begins to put what happens on the queue, in a thread."""
        name = f"wait-{self._task.name}"
        threading.Thread(target=self._wait, args=(events, job_hosts), name=name, daemon=True).start()

    def stop(self, notice: float) -> None:
        """Asks the task to stop: srun passes the notice and the end of its input on."""
        assert self._srun.stdin is not None
        # Asked already, to be started again, when the run is stopped as well.
        if self._srun.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self._srun.stdin.write(str(notice).encode())
            self._srun.stdin.close()

    def kill(self) -> None:
        """Ends the step at once; that is what srun does when it is terminated."""
        self._srun.terminate()

    def check(self) -> None:
        """Gives srun up if the host has told the task's end long ago, and srun has not heard of it."""
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now if self._end_path.exists() else None
        elif now - self._told_at > _HEAR_SECONDS:
            self._deaf = True
            self._kill_srun()

    def close(self) -> None:
        """Ends srun itself, and removes the step's files."""
        self._kill_srun()
        for path in self._files:
            path.unlink(missing_ok=True)

    def _kill_srun(self) -> None:
        if self._srun.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._srun.pid, signal.SIGKILL)

    def _wait(self, events: queue.SimpleQueue[Any], job_hosts: Callable[[], Collection[str]]) -> None:
        assert self._srun.stdout is not None
        said = []
        for raw in self._srun.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            # srun's own words may follow in the same line.
            told = TOLD.search(line)
            if told is not None:
                events.put(Asked(self._task.name, int(told[1])))
            elif line:
                said.append(line)
        status = self._srun.wait()
        ended = None
        with contextlib.suppress(OSError, ValueError):
            finished = Finished.load(self._end_path)
            self.end, ended = finished.end, finished.ended
        # A task that stops because its host has lost the launcher ends well, for its host.
        if ended is None or (status != 0 and ended.crash is None and ended.signal is None):
            srun = "did not hear of the step's end" if self._deaf else describe_exit(status)
            said = said or [f"srun: {srun}"]
            ended = self._unwritten(said) if status == UNWRITABLE_STATUS else self._lost(said, job_hosts)
        events.put(ended)

    def _unwritten(self, said: Sequence[str]) -> Ended:
        """The end of a task whose host could not write it."""
        message = f"task {self._task.name}: the run's files cannot be written: {said[0]}"
        return Ended(self._task.name, Crash(message, "\n".join(said), fatal=True))

    def _lost(self, said: Sequence[str], job_hosts: Callable[[], Collection[str]]) -> Ended:
        """The end of a task whose host has not told it."""
        task = self._task
        gone = False
        # The controller may be away; then srun fails again, and this is asked again.
        with contextlib.suppress(LaunchError):
            # A host that is down is taken from the job for good.
            gone = task.host not in job_hosts()
        where = f"{task.host}, which the job has no longer" if gone else task.host
        message = f"task {task.name} was lost on {where}: {said[-1]}; log: {task.log_path}"
        return Ended(task.name, Crash(message, "\n".join(said), fatal=gone))
