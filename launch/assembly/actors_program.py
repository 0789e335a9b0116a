"""The program of actors that join a running experiment: their nodes, and what each of them reads."""

import dataclasses
import hashlib
import pathlib
import random
from collections.abc import Sequence

from classact.launch.assembly import joined_actor
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.run_loop_node import Reader
from classact.launch.assembly.run_spec import RunSpec


@dataclasses.dataclass(frozen=True)
class JoiningActors:
    """Actors that have passed every check that can be made before they ask anybody.

    Attributes:
        run: what their nodes are built from, as the experiment's own.
        data_set: whose stream they read and whose replay they fill.
        call: tells this call's actors from others': host and random digits.
        count: how many.
        learner: its address.
        replays: addresses of each of the data set's replay servers.
        first_lines: what the user is told before they start.
    """

    run: RunSpec
    data_set: str
    call: str
    count: int
    learner: str
    replays: tuple[str, ...]
    first_lines: Sequence[str] = ()

    @property
    def workdir(self) -> pathlib.Path:
        """The run directory."""
        return self.run.workdir

    @property
    def scores(self) -> bool:
        """Whether they are inference servers with run loops; else they are run loops alone."""
        return self.run.config.data_sets[self.data_set].has_servers

    @property
    def num_readers(self) -> int:
        """How many run loops they have together."""
        own = self.run.config.data_sets[self.data_set].inference
        return self.count * (own.run_loops if self.scores else 1)

    @property
    def labels(self) -> list[str]:
        """The label of each actor; its log and its metrics are named alike."""
        kind = "inference" if self.scores else "run_loop"
        return [f"{kind}/{self._name(index)}" for index in range(self.count)]

    def readers(self, index: int) -> list[Reader]:
        """What the run loops of an actor read.

        The experiment's own run loops split each epoch among them, which nobody can
        join. So those of one call share another seed, made of the experiment's and of
        the call's name, and split their own epochs: an example is scored at most once
        per epoch of theirs, but an epoch of theirs is none of the experiment's. What
        they add to the replay is drawn IID as well.
        """
        seed = self.run.config.seed
        digest = hashlib.sha256(f"{seed} {self.data_set} {self.call}".encode()).digest()
        own = int.from_bytes(digest[:4], "big")
        each = self.num_readers // self.count
        return [
            Reader(self._name(number), own, number, self.num_readers)
            for number in range(index * each, (index + 1) * each)
        ]

    def _name(self, number: int) -> str:
        return f"{self.data_set}-joined-{self.call}-{number}"


def build_program(joining: JoiningActors) -> lp.Program:
    """Builds the program of actors that join: a node each, without a server of its own.

    With several replay servers the run loops write to them in turn, from a random one on.
    """
    program = lp.Program("classact actors")
    first = random.randrange(len(joining.replays))
    replays = (*joining.replays[first:], *joining.replays[:first])
    for index, label in enumerate(joining.labels):
        node = lp.PyClassNode(
            joined_actor.make,
            joining.run,
            joining.data_set,
            label.split("/")[1],
            joining.readers(index),
            joining.learner,
            replays,
        )
        with program.group(label):
            program.add_node(node)
    return program
