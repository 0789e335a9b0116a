"""Tasks that do what a test tells them, over a socket; see `Stage`.

Also a program of its own, so that tests can send signals to a launcher:

    python puppets.py act PORT NAME         a puppet that is no Launchpad node
    python puppets.py launch WORKDIR PORT   launches LAUNCHED, exits with the outcome's status
    python puppets.py steps WORKDIR PORT    the same as steps of the Slurm job that it runs in
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from classact.calls import exposed

SECONDS = 30.0
# Of nodes on clusters.
HUNG = 6.0
LAUNCHED = ("learner", "run_loop-icons")


class ToldToCrash(Exception):
    pass


def act(port, name, server=None):
    """Connects to the stage and obeys, until told to end."""
    with socket.create_connection(("127.0.0.1", port)) as stage:
        # A command is one line, and so is the reply.
        stage.sendall(f"{name} {os.getpid()}\n".encode())
        for line in stage.makefile("r"):
            command, *words = line.split()
            if command == "return":
                return
            reply = COMMANDS[command](server, *words)
            stage.sendall(f"{reply}\n".encode())


def _loop(server):
    """A function of a user's that never returns."""
    from classact.nodes import activity

    with activity.part("learner"):
        while True:
            pass


def _lack(server, data_set):
    from classact.nodes.errors import NoDataError

    raise NoDataError(data_set, "delivered no batch for 3 s")


def _call(server, number):
    return server.double(int(number))


def _fatal(server, word):
    from classact.data.source import DataError

    raise DataError(word)


def _crash(server, word):
    print("a line before the crash", flush=True)
    raise ToldToCrash(word)


def _wait(server):
    from classact.launch.assembly.launchpad import lp

    lp.wait_for_stop()
    print("saw the stop event", flush=True)
    raise SystemExit(0)


def _stop(server):
    from classact.launch.assembly.launchpad import lp

    lp.stop()


def _last_words(server):
    from classact.launch.assembly.launchpad import lp

    lp.wait_for_stop()
    return "asked to stop"


def _stopped(server):
    from classact.launch.assembly.launchpad import lp

    return lp.stop_event().is_set()


def _deaf(server):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return "deaf"


def _spawn(server, port, name):
    subprocess.Popen([sys.executable, __file__, "act", port, name])
    return "spawned"


COMMANDS = {
    "call": _call,
    "server": lambda server: server.pid(),
    "crash": _crash,
    "fatal": _fatal,
    "wait": _wait,
    "loop": _loop,
    "lack": _lack,
    "last_words": _last_words,
    "stopped": _stopped,
    "stop": _stop,
    "deaf": _deaf,
    "spawn": _spawn,
    "env": lambda server, name: os.environ.get(name, "not set"),
    "exit": lambda server, status: sys.exit(int(status)),
}


class Doubler:
    """A node that others call."""

    @exposed
    def double(self, number):
        return 2 * number

    @exposed
    def pid(self):
        return os.getpid()


class Puppet:
    """The test's end of a puppet's strings."""

    def __init__(self, connection):
        self._connection = connection
        self._lines = connection.makefile("r")
        self.name, pid = self._lines.readline().split()
        self.pid = int(pid)
        self._process = os.pidfd_open(self.pid)
        weakref.finalize(self, os.close, self._process)

    def tell(self, command):
        self._connection.sendall(f"{command}\n".encode())

    def ask(self, command):
        self.tell(command)
        return self.hear()

    def hear(self):
        return self._lines.readline().strip()

    def close(self):
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def wait_until_gone(self, seconds):
        """Fails unless the puppet's process ends within the time."""
        self._connection.settimeout(seconds)
        with contextlib.suppress(ConnectionResetError):
            assert self._connection.recv(1) == b"", f"{self.name} spoke instead of ending"
        # Between the end of its connection and its own the interpreter shuts down.
        assert select.select([self._process], [], [], seconds)[0], f"{self.name} did not end"


class Stage:
    """Where puppets connect, in any order."""

    def __init__(self, seconds=SECONDS):
        """`seconds`: how long it waits for a puppet, and for what one says."""
        self._seconds = seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(seconds)
        self.port = self._listener.getsockname()[1]
        self._puppets = []

    def await_puppets(self, *names):
        """Waits until these puppets, and no others, have entered; in the order of `names`."""
        arrived = {}
        while len(arrived) < len(names):
            connection, _ = self._listener.accept()
            connection.settimeout(self._seconds)
            puppet = Puppet(connection)
            self._puppets.append(puppet)
            arrived[puppet.name] = puppet
        assert set(arrived) == set(names)
        return [arrived[name] for name in names]

    def close(self):
        """Makes every puppet that is still there return."""
        self._listener.close()
        for puppet in self._puppets:
            puppet.close()


class Script(threading.Thread):
    """Directs the puppets while the launcher under test has the main thread.

    Should the scene fail, the stage is closed, which ends the run, and `finish` raises.
    """

    def __init__(self, stage, scene):
        super().__init__()
        self._stage = stage
        self._scene = scene
        self._error = None
        self.start()

    def run(self):
        try:
            self._scene()
        except BaseException as error:
            self._error = error
            self._stage.close()

    def finish(self):
        self.join(SECONDS)
        if self._error is not None:
            raise self._error


def program(port):
    """The puppets LAUNCHED as Launchpad nodes."""
    import cloudpickle

    from classact.launch.assembly.launchpad import lp

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = lp.Program("puppets")
    made.add_node(lp.PyNode(act, port, "learner"), label="learner")
    made.add_node(lp.PyNode(act, port, "run_loop-icons"), label="run_loop/icons")
    return made


def config_of(**changes):
    """The defaults, with changes."""
    from classact.experiments import base, resolution

    return resolution.resolve({**base.get_config().to_dict(), "policy": "uniform", **changes})


def job_of(program, workdir, **changes):
    """A program as engines get it, until its learner has ended."""
    from classact.launch.assembly.jobs import make_job

    return make_job(
        program,
        config_of(**changes),
        Path(workdir),
        {},
        until=["learner"],
        on_start=lambda endpoints: None,
        command_module="none",
        own_environment=lambda label, index: {},
    )


def launch(workdir, port, notice=8.0):
    """Launches the puppets in processes."""
    from classact.launch.engines.local.processes import Processes

    job = job_of(program(port), workdir, stop_notice_seconds=notice, restarts_per_hour=0)
    outcome = Processes().run(job)
    print(json.dumps({"status": outcome.status, "message": outcome.message, "killed": outcome.killed}))
    return outcome.exit_status


def steps(workdir, port):
    """Launches the puppets as steps of a job; they may be started again once. Writes the outcome."""
    from classact.launch.engines.interrupts import interrupts_to
    from classact.launch.engines.slurm.engine import Slurm

    job = job_of(program(port), workdir, stop_notice_seconds=12.0, restarts_per_hour=1, hung_seconds=HUNG)
    with interrupts_to(job.signals):
        outcome = Slurm().run(job)
        told = {"status": outcome.status, "message": outcome.message, "restarts": dict(outcome.restarts)}
        ends = {name: [end.exit_status, end.killed] for name, end in outcome.tasks.items()}
        (Path(workdir) / "outcome.json").write_text(json.dumps({**told, "ends": ends}))
    return outcome.exit_status


if __name__ == "__main__":
    if sys.argv[1] == "act":
        act(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "steps":
        sys.exit(steps(sys.argv[2], int(sys.argv[3])))
    else:
        sys.exit(launch(sys.argv[2], int(sys.argv[3]), *map(float, sys.argv[4:])))
