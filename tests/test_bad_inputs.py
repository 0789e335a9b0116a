"""What a user can get wrong, as the command line answers it.

Each case ends with status 2 and one line that names what is wrong and what would do;
no process has started by then, and no file has changed.
"""

import dataclasses
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
import tokenizers
from PIL import Image
from weights_cases import FIXTURES, SPECS

from classact.data import stream  # noqa: F401 - so that its import is no part of a case.
from classact.experiments import resolution
from classact.experiments.configs import classification, image_text
from classact.launch.assembly import jobs
from classact.launch.assembly.parts import learning, shapes, sources
from classact.launch.commands import attach_actors, cli
from classact.launch.engines import threads
from classact.launch.engines.local import processes
from classact.nodes import checkpoints, training

CONFIGS = pathlib.Path(classification.__file__).parent
SMALL = {"patch_size": 4, "learner.model": "vit_mu_1_1", "scorer.model": "vit_mu_1_1"}
FIELDS = " ".join(f"--config.{name}={value}" for name, value in SMALL.items())
TRAIN = f"train --config={CONFIGS}/classification.py --workdir=run {FIELDS} --config.train_data=digits"
PLAN = f"plan --config={CONFIGS}/classification.py --config.train_data=digits"
PAIRS = TRAIN.replace("classification.py", "image_text.py").replace("=digits", "=captioned_folder:pairs")
# Where a held-out reference asks for the rest of the data.
REST = "--config.train_split=rest --config.held_out=0.5"
HARD = f"{TRAIN} --config.policy=classact_online"
SELECT = f"{TRAIN} --config.policy=classact --config.reference.checkpoint"
SCORE_PAIRS = f"{PAIRS} --config.policy=classact --config.reference.checkpoint"
# The only processes that are no run's: what git says is written down, and JAX counts its devices.
HARMLESS = ("git", "import jax")
FOUND = ("classact: trains on ", "classact: measures on ", "classact:   ")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is typed, and what the answer must hold.

    Attributes:
        name: what is wrong.
        command: after `classact`. It finds a finished run in `saved`, and one of pairs in
            `saved_pairs`, if it names them; pairs in `pairs`.
        words: parts of the answer.
        prepare: makes or damages files; in the folder that the command runs in.
    """

    name: str
    command: str
    words: tuple[str, ...]
    prepare: Callable[[], object] = lambda: None


def write(path, content=""):
    """Writes a file in folders of its own."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def config_file(text):
    return lambda: write("mine.py", text)


def from_base(line):
    """A configuration that sets something that no argument can."""
    lines = ["from classact.experiments.configs import classification", "def get_config():"]
    lines += ["    config = classification.get_config()", f"    {line}", "    return config"]
    return config_file("\n".join(lines))


def change(path, **fields):
    """Changes what a JSON file says; None takes a field away."""
    found = json.loads(pathlib.Path(path).read_text()) | fields
    write(path, json.dumps({name: value for name, value in found.items() if value is not None}))


def cut(folder):
    """Leaves ten bytes of each file."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])


def npz(path="mine.npz", count=20, side=8, labels=None):
    labels = np.arange(count) % 10 if labels is None else labels
    np.savez(path, image=np.zeros((count, side, side, 1), np.uint8), label=labels)


def png(side=8):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "PNG")
    return buffer.getvalue()


def pngs(*names, side=8):
    for name in names:
        write(name, png(side))


def tar(path, members, format=tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=format) as file:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))


def idx(name, *shape, value=0, cut_off=0):
    """Writes an IDX file of bytes that are alike but for the last one, which is 1."""
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    content = header + bytes([value]) * (int(np.prod(shape)) - 1) + bytes([1])
    write(f"fashion/{name}-ubyte", content[: len(content) - cut_off])


def fashion(images=0, labels=0, label=0):
    """Fashion-MNIST in small, with files that are cut off or labels that are not its own."""
    for split in ("train", "t10k"):
        idx(f"{split}-images-idx3", 10, 28, 28, cut_off=images)
        idx(f"{split}-labels-idx1", 10, value=label, cut_off=labels)


def vocabulary(*tokens):
    model = tokenizers.models.BPE({token: number for number, token in enumerate(tokens)}, [])
    tokenizers.Tokenizer(model).save("tokens.json")


def both(*steps):
    return lambda: [step() for step in steps]


COMMAND_LINE = [
    Case(
        "an unknown command", "trian", ("unknown command 'trian'", "train, serve, evaluate, actors, status")
    ),
    Case("no command but a flag", "--workdir=run", ("unknown command '--workdir=run'", "train")),
    Case("no configuration", "train --workdir=run", ("--config=FILE.py is missing", "experiments/configs/")),
    Case("no configuration but fields", "train --config.steps=3", ("--config=FILE.py is missing",)),
    Case("no work directory", TRAIN.replace("--workdir=run", ""), ("--workdir=DIR is missing",)),
    Case("an empty work directory", TRAIN.replace("=run", "="), ("--workdir=DIR is missing",)),
    Case("a value left out", f"{TRAIN} --workdir", ("Missing value for flag --workdir",)),
    Case("a mistyped flag", f"{TRAIN} --wrokdir=x", ("wrokdir", "Did you mean: workdir")),
    Case("a mistyped field", f"{TRAIN} --config.polcy=rho", ("--config.polcy", "did you mean policy")),
    Case(
        "a mistyped field of a group",
        f"{TRAIN} --config.learner.modle=x",
        ("'modle' of learner", "did you mean model"),
    ),
    Case(
        "a field of no group",
        f"{TRAIN} --config.steps.every=3",
        ("--config.steps.every", "steps is one value"),
    ),
    Case(
        "no whole number", f"{TRAIN} --config.steps=many", ("--config.steps=many: expected a whole number",)
    ),
    Case(
        "a fraction of a step",
        f"{TRAIN} --config.steps=2.5",
        ("--config.steps=2.5: expected a whole number",),
    ),
    Case(
        "no number",
        f"{TRAIN} --config.temperature=hot",
        ("--config.temperature=hot: expected a number",),
    ),
    Case(
        "neither true nor false",
        f"{TRAIN} --config.inference.run_loops_as_nodes=maybe",
        ("run_loops_as_nodes", "expected true or false"),
    ),
    Case("a word for a group", f"{TRAIN} --config.replay=big", ("--config.replay=big", "expected a dict")),
    Case(
        "a group after its field",
        f"{TRAIN} --config.learner={{}}",
        ("config.learner", "after --config.learner.model"),
    ),
    Case("an argument too many", f"{TRAIN} steps=3", ("'steps=3'", "--config.FIELD=VALUE")),
    Case(
        "an unknown engine",
        f"{TRAIN} --launch=cloud",
        ("launch='cloud'", "one of processes, ray, slurm, synchronous, threads"),
    ),
    Case("evaluate nothing", "evaluate", ("--workdir is missing: Run directory",)),
    Case(
        "evaluate how", "evaluate --workdir=saved", ("--evaluator is missing", "accuracy|retrieval|zero_shot")
    ),
    Case(
        "an unknown evaluator",
        "evaluate --workdir=saved --evaluator=acuracy",
        ("--evaluator=acuracy", "accuracy|retrieval|zero_shot"),
    ),
    Case(
        "evaluated backwards",
        "evaluate --workdir=saved --evaluator=accuracy --every=-1",
        ("--every=-1", "non-negative"),
    ),
    Case(
        "what to evaluate as an argument",
        "evaluate --workdir=saved accuracy",
        ("unexpected argument 'accuracy'", "--NAME=VALUE"),
    ),
    Case("actors of nothing", "actors", ("--workdir is missing",)),
    Case("no actors", "actors --workdir=saved --count=0", ("--count=0", "positive integer")),
    Case("many actors", "actors --workdir=saved --count=many", ("--count=many", "expected a whole number")),
    Case("status of nothing", "status", ("--workdir is missing",)),
    Case("status of an argument", "status saved", ("unexpected argument 'saved'", "--NAME=VALUE")),
    Case("logs of nothing", "logs --workdir=", ("--workdir is missing",)),
    Case("the last no lines", "logs --workdir=saved --last=0", ("--last=0", "positive integer")),
    Case("compare nothing", "compare", ("name at least one run directory",)),
    Case("shared by nobody", "compare saved --reference-runs=0", ("--reference-runs=0", "positive integer")),
    Case("plan nothing", "plan", ("--config=FILE.py is missing",)),
    Case("plan an argument", f"{PLAN} steps=5", ("unexpected argument 'steps=5'",)),
    Case(
        "an update without end",
        f"{PLAN} --step-seconds=inf",
        ("--step-seconds=inf", "finite number"),
    ),
    Case("all updates saved", f"{PLAN} --speedup=1", ("--speedup=1.0", "below 1")),
    Case("an image of no channels", f"{PLAN} --image=8x8", ("--image=8x8", "224x224x3")),
    Case("classes of data", f"{PLAN} --classes=3", ("--classes", "only with --image")),
    Case("data of no name", "data --out=x", ("expected the name of a set, icons, got nothing",)),
    Case("data of another name", "data photos --out=x", ("expected the name of a set, icons", "photos")),
    Case("data to nowhere", "data icons", ("--out=DIR is missing",)),
    Case("icons of no size", "data icons --out=x --size=0", ("--size=0", "positive integer")),
]


def field(name, value, *words, command=TRAIN):
    """A field that has a value that it cannot have, whatever the others have."""
    return Case(f"{name}={value}", f"{command} --config.{name}={shlex.quote(str(value))}", words)


ONE_FIELD = [
    field("policy", "clasact", "policy='clasact'", "did you mean classact"),
    field("reference.pretraining_macs", 5.0, "reference.pretraining_macs=5.0", "-1 with policy 'uniform'"),
    field("reference.pretraining_macs", -2.0, "reference.pretraining_macs=-2.0", "off the shelf"),
    field("policy", "no_such_module:mine", "there is no module no_such_module", "PYTHONPATH"),
    field("batch_size", 0, "batch_size=0", "at least 1"),
    field("filter_ratio", 1.0, "filter_ratio=1.0", "at least 0 and below 1"),
    field("filter_ratio", "nan", "filter_ratio=nan", "at least 0 and below 1"),
    field("temperature", 0, "temperature=0.0", "a finite number above 0"),
    field("max_nonfinite_share", 2, "max_nonfinite_share=2.0", "between 0 and 1"),
    field("weight", -1, "weight=-1.0", "a finite number above 0"),
    field("task", "regression", "task='regression'", "classification", "contrastive"),
    field("train_data", "digts", "unknown data source 'digts'", "did you mean digits"),
    field("train_data", "", "train_data=''", "the name of a source"),
    field("eval_data", "digits:test", "'digits' takes no argument", "test"),
    field("label_noise", 1.5, "label_noise=1.5", "a share between 0 and 1"),
    field("train_split", "half", "train_split='half'", "held_out", "rest"),
    field("data_seed", -1, "data_seed=-1", "at least 0"),
    field("data_seed", 2**32, "data_seed=4294967296", "below 2^32"),
    field("steps", 0, "steps=0", "at least 1"),
    field("steps", 10**12, "steps=1000000000000", "below 2^31"),
    field("seed", 2**80, f"seed={2**80}", "below 2^32"),
    field("seed", 2**32, "seed=4294967296", "below 2^32"),
    field("learning_rate", "nan", "learning_rate=nan", "a finite number above 0"),
    field("warmup_steps", -2, "warmup_steps=-2", "at least -1"),
    field("weight_decay", -0.1, "weight_decay=-0.1", "at least 0"),
    field("clip_norm", "inf", "clip_norm=inf", "a finite number"),
    field("label_smoothing", 1, "label_smoothing=1.0", "at least 0 and below 1"),
    field("patch_size", 3, "patch_size=3", "8×8", "expected one of"),
    field("learner.model", "vit_mu_1_2", "learner.model=", "unknown model 'vit_mu_1_2'", "vit_mu_1_1"),
    field("scorer.model", "vit_mu_9", "scorer.model='vit_mu_9'", "did you mean 'vit_mu_6_3'", command=HARD),
    field("learner.model", "no_such_module:net", "there is no module no_such_module", "PYTHONPATH"),
    field("learner.text_model", "text_b", "learner.text_model='text_b'", "empty with task='classification'"),
    field("learner.options", "{'poool': 'cls'}", "no option 'poool'", "pool"),
    field("learner.options", "{'pool': 7}", "pool=7", "expected one of"),
    field("learner.options", "{'num_classes': 7}", "learner.options: 'num_classes'", "follows from"),
    field("learner.options", "{'pool'", "--config.learner.options", "expected a dict"),
    field("mesh.hosts", 0, "mesh.hosts=0", "at least 1"),
    field("mesh.fsdp", 3, "mesh.fsdp=3", "must divide the number of the learner's devices, 1 a host"),
    field("gradient_accumulation", 3, "batch_size=64", "divisible", "gradient_accumulation=3"),
    field("reference.super_batch", -1, "reference.super_batch=-1", "at least 0"),
    field("reference.learning_rate_factor", 0, "reference.learning_rate_factor=0.0", "above 0"),
    field("replay.capacity", 100, "replay.capacity=100", "at least two super-batches, 128"),
    field("replay.shards", 0, "replay.shards=0", "at least 1"),
    field("inference.servers", 0, "inference.servers=0", "at least 1"),
    field("inference.run_loops", -1, "inference.run_loops=-1", "0: chosen for you"),
    field("inference.batch_size", 10, "inference.batch_size=10", "inference.request_size=64 (0: just that)"),
    field("inference.request_size", -1, "inference.request_size=-1", "at least 0 (0: chosen for you)"),
    field("inference.max_wait_seconds", "nan", "inference.max_wait_seconds=nan", "a finite number"),
    field("evaluation.every", 0, "evaluation.every=0", "at least 1 update"),
    field("evaluation.batch_size", 0, "evaluation.batch_size=0", "at least 1"),
    field("evaluation.evaluators", "{'Test': {'kind': 'accuracy', 'data': ''}}", "Test", "named by a-z"),
    field("evaluation.evaluators", "{'test': {'kind': 'accuracy'}}", "evaluators.test.data", "missing"),
    field("evaluation.evaluators", "{'test': 'accuracy'}", "evaluators.test='accuracy'", "a group of fields"),
    field("log_every", 0, "log_every=0", "at least 1"),
    field("checkpoint_every", -1, "checkpoint_every=-1", "at least 3"),
    field("restarts_per_hour", -1, "restarts_per_hour=-1", "at least 0"),
    field("hung_seconds", 1, "hung_seconds=1.0", "0 (never), or a finite number of at least 5"),
    field("stop_notice_seconds", 0.0, "stop_notice_seconds=0.0", "above 0"),
    field("no_data_seconds", 0, "no_data_seconds=0.0", "a finite number above 0"),
    field("threads.learner", -1, "threads.learner=-1", "0: one per core"),
    field("cluster.hosts", -1, "cluster.hosts=-1", "0: as few as have room"),
    field("cluster.learner.cpus", 0, "cluster.learner.cpus=0", "at least 1"),
    field("cluster.replay.memory_gb", "nan", "cluster.replay.memory_gb=nan", "0: not limited"),
    field("cluster.sbatch", "-A us", "cluster.sbatch='-A us'", "long options such as"),
    field("cluster.sbatch", "--nodes=3", "cluster.sbatch='--nodes=3'", "without --nodes=3"),
    field("contrastive.loss", "triplet", "contrastive.loss 'triplet'", "infonce", "sigmoid", command=PAIRS),
    field(
        "contrastive.similarity_precision",
        "float32",
        "contrastive.similarity_precision 'float32'",
        "highest",
        command=PAIRS,
    ),
    field("contrastive.act_loss", "cosine", "contrastive.act_loss 'cosine'", "dot", "infonce", command=PAIRS),
    field(
        "contrastive.tokenizer", "gpt2", "unknown tokenizer 'gpt2'", "clip, icons, file:PATH", command=PAIRS
    ),
    field("contrastive.tokenizer", "file:tokens.json", "tokens.json: no such file", command=PAIRS),
    field("contrastive.context_length", 2, "contrastive.context_length=2", "at least 3", command=PAIRS),
    field("contrastive.embedding_size", 0, "contrastive.embedding_size=0", "at least 2", command=PAIRS),
    field(
        "learner.text_model", "text_mu_1_2", "unknown text model 'text_mu_1_2'", "text_mu_1_1", command=PAIRS
    ),
]

TOGETHER = [
    Case("more warm-up than steps", f"{TRAIN} --config.warmup_steps=1500", ("warmup_steps", "steps=1500")),
    Case(
        "a policy without its reference", f"{SELECT}=", ("reference.checkpoint", "run directory", "classact")
    ),
    Case(
        "a reference without its policy",
        f"{TRAIN} --config.reference.checkpoint=saved",
        ("reference.checkpoint='saved'", "must be empty", "'uniform' uses no fixed reference"),
    ),
    Case(
        "a held-out reference and all the data",
        f"{SELECT}=saved --config.policy=rho",
        ("train_split='all'", "'rest'", "rho"),
    ),
    Case("a split of nothing", f"{TRAIN} --config.train_split=rest", ("held_out=0.0", "above 0", "rest")),
    Case(
        "a held-out part without an example",
        f"{TRAIN} --config.train_split=held_out --config.held_out=1e-6",
        ("held_out=1e-06", "at least one example on each side"),
    ),
    Case(
        "captions to shuffle where there are labels",
        f"{TRAIN} --config.caption_noise=0.3",
        ("caption_noise=0.3", "must be 0", "label_noise"),
    ),
    Case(
        "labels to redraw where there are captions",
        f"{PAIRS} --config.label_noise=0.3",
        ("label_noise=0.3", "must be 0", "caption_noise"),
    ),
    Case(
        "a batch that shards cannot share",
        f"{TRAIN} --config.replay.shards=3 --config.inference.run_loops=3",
        ("batch_size=64", "a multiple of replay.shards=3"),
    ),
    Case(
        "more shards than run loops",
        f"{TRAIN} --config.replay.shards=2",
        ("replay.shards=2", "at most 1", "inference.servers"),
    ),
    Case(
        "a batch that hosts cannot share",
        f"{TRAIN} --config.mesh.hosts=3",
        ("batch_size=64", "divisible by mesh.hosts=3"),
    ),
    Case(
        "hosts as threads",
        f"{TRAIN} --config.mesh.hosts=2 --launch=threads",
        ("mesh.hosts=2", "--launch=threads", "one process"),
    ),
    Case(
        "hosts of one loop",
        f"{TRAIN} --config.mesh.hosts=2 --launch=synchronous",
        ("mesh.hosts=2", "must be 1 with --launch=synchronous"),
    ),
    Case(
        "a loop on several devices",
        f"{TRAIN} --config.mesh.fsdp=2 --launch=synchronous",
        ("mesh.fsdp=2", "must be 1 with --launch=synchronous"),
    ),
    Case(
        "more run loops than examples",
        f"{TRAIN} --config.inference.run_loops=2000",
        ("inference.run_loops = 2000", "at most 1438", "digits"),
    ),
    Case(
        "a text tower that no ViT gives its size",
        f"{PAIRS} --config.learner.model=resnet18",
        ("learner.text_model=''", "the name of a text tower, such as"),
    ),
    Case(
        "retrieval among labels",
        f"{TRAIN} --config.evaluation.evaluators=\"{{'r': {{'kind': 'retrieval', 'data': ''}}}}\"",
        ("evaluation.evaluators.r.kind='retrieval'", "accuracy", "task='classification'"),
    ),
    Case(
        "accuracy on captions",
        f"{PAIRS} --config.evaluation.evaluators=\"{{'a': {{'kind': 'accuracy', 'data': ''}}}}\"",
        ("evaluation.evaluators.a.kind='accuracy'", "retrieval", "task='contrastive'"),
    ),
    Case(
        "zero-shot classes without names",
        f"{PAIRS} --config.evaluation.evaluators="
        "\"{'z': {'kind': 'zero_shot', 'data': 'npz:mine.npz'}}\"",
        ("npz:mine.npz", "classes have no names", "zero_shot"),
        npz,
    ),
    Case(
        "unknown templates",
        f"{PAIRS}?channels=1 --config.evaluation.evaluators="
        "\"{'z': {'kind': 'zero_shot', 'data': 'digits', 'templates': 'clip'}}\"",
        ("templates 'clip'", "simple, file:PATH"),
    ),
    Case(
        "distinct captions of labels",
        f"{PAIRS} --config.evaluation.evaluators="
        "\"{'r': {'kind': 'retrieval', 'data': 'digits', 'distinct': True}}\"",
        ("digits has no captions", "distinct"),
    ),
    Case(
        "data sets of different classes",
        TRAIN.replace(str(CONFIGS / "classification.py"), "mine.py"),
        ("npz:mine.npz: 3 classes here, 10 in digits", "?classes=K"),
        both(
            lambda: npz(labels=np.arange(20) % 3),
            from_base(
                "from classact.experiments import base; config.data_sets = {name: base.data_set(config, "
                "train_data=data) for name, data in {'first': 'npz:mine.npz', 'second': 'digits'}.items()}"
            ),
        ),
    ),
    Case(
        "a data set with a bad field",
        TRAIN.replace(str(CONFIGS / "classification.py"), "mine.py"),
        ("data_sets.first.temperature=-1.0", "a finite number above 0"),
        from_base(
            "from classact.experiments import base; "
            "config.data_sets = {'first': base.data_set(config, temperature=-1.0)}"
        ),
    ),
    Case(
        "a data set with a name for people",
        TRAIN.replace(str(CONFIGS / "classification.py"), "mine.py"),
        ("data_sets='First one'", "named by a-z"),
        from_base(
            "from classact.experiments import base; config.data_sets = {'First one': base.data_set(config)}"
        ),
    ),
]


def data(name, spec, words, prepare=lambda: None, command=TRAIN, role="train_data"):
    return Case(name, f"{command} --config.{role}={shlex.quote(spec)}", words, prepare)


DATA = [
    data("an npz file that is not there", "npz:mine.npz", ("mine.npz: no such file",)),
    data("an npz file without a name", "npz:", ("'npz' needs a file: npz:PATH",)),
    data("a directory for an npz file", "npz:saved", ("saved", "not an npz file")),
    data(
        "text for an npz file",
        "npz:mine.npz",
        ("mine.npz: not an npz file",),
        lambda: write("mine.npz", "a,b"),
    ),
    data(
        "an npz file without labels",
        "npz:mine.npz",
        ("mine.npz: lacks label", "it has image"),
        lambda: np.savez("mine.npz", image=np.zeros((4, 8, 8), np.uint8)),
    ),
    data(
        "images of numbers from 0 to 1",
        "npz:mine.npz",
        ("mine.npz: images are float64[4, 8, 8, 1]", "expected uint8"),
        lambda: np.savez("mine.npz", image=np.zeros((4, 8, 8)), label=np.arange(4)),
    ),
    data(
        "a label out of range",
        "npz:mine.npz?classes=5",
        ("mine.npz: example 5 has label 5", "expected 0 to 4"),
        npz,
    ),
    data(
        "a negative label",
        "npz:mine.npz",
        ("mine.npz: example 0 has label -1", "expected 0 to"),
        lambda: npz(labels=np.arange(20) % 10 - 1),
    ),
    data(
        "an unknown option", "npz:mine.npz?clases=5", ("unknown option 'clases'", "did you mean classes"), npz
    ),
    data("more icons' classes than there are", "icons?classes=5000", ("classes=5000", "expected at most")),
    data("a source that takes no argument", "digits:mine", ("'digits' takes no argument", "mine")),
    data("Fashion-MNIST nowhere", "fashion_mnist:nowhere", ("none of nowhere", "apt-get download")),
    data(
        "idx images cut off",
        "fashion_mnist:fashion",
        ("train-images", "truncated inside example 9 of 10"),
        lambda: fashion(images=3),
    ),
    data(
        "idx labels out of range",
        "fashion_mnist:fashion",
        ("train-labels", "example 0 has label 77", "expected 0 to 9"),
        lambda: fashion(label=77),
    ),
    data(
        "idx labels in another format",
        "fashion_mnist:fashion",
        ("t10k-labels", "not an IDX file"),
        both(fashion, lambda: write("fashion/t10k-labels-idx1-ubyte", "0,1,2")),
    ),
    data("a folder that is not there", "folder:photos", ("photos: cannot be listed", "No such file")),
    data("a file for a folder", "folder:photos", ("photos: cannot be listed",), lambda: write("photos")),
    data(
        "an empty folder",
        "folder:photos",
        ("photos: no PNG, JPEG, WebP, GIF, BMP or TIFF files", "expected one directory a class"),
        lambda: write("photos/readme.txt"),
    ),
    data(
        "images of several sizes",
        "folder:photos",
        ("16×16 pixels", "8×8", "say folder:PATH?size=N"),
        both(lambda: pngs("photos/cat/1.png"), lambda: pngs("photos/dog/1.png", side=16)),
    ),
    data(
        "images that are none",
        "folder:photos",
        ("2 of 2 images are damaged", "photos/dog/1.png: HTML text"),
        both(lambda: write("photos/cat/1.png"), lambda: write("photos/dog/1.png", "<html>404</html>")),
    ),
    data(
        "splits for classes",
        "folder:photos",
        (
            "the splits of a data set (test, train)",
            "say folder:photos/train, and as eval_data folder:photos/test",
        ),
        lambda: pngs(*(f"photos/{split}/{kind}/1.png" for split in ("train", "test") for kind in "ab")),
    ),
    data(
        "images of no side",
        "folder:photos?size=0",
        ("size=0", "a whole number above 0"),
        lambda: pngs("photos/cat/1.png"),
    ),
    data(
        "captions to classify by",
        "captioned_folder:pairs",
        ("has no labels to classify by", "task='contrastive'"),
    ),
    data(
        "images without captions",
        "captioned_folder:photos",
        ("no image with a caption (1 without a caption: 1.png)", "the text of NAME.txt"),
        lambda: pngs("photos/1.png"),
        PAIRS,
    ),
    data("captions nowhere", "captioned_folder:photos", ("photos: no such directory",), command=PAIRS),
    data("shards that no name matches", "tar:photos-*.tar", ("photos-*.tar: no such file",), command=PAIRS),
    data("a range of shards from above", "tar:{9..0}.tar", ("{9..0}.tar", "{FIRST..LAST}"), command=PAIRS),
    data("an order that is none", "tar:/dev/null?order=random", ("order=random", "iid or shards")),
    data("a buffer of what is read at random", "tar:/dev/null?buffer=9", ("buffer=9", "order=shards")),
    data(
        "a shard cut off",
        "tar:one.tar",
        ("one.tar: cut off",),
        both(
            lambda: tar("one.tar", {"1.png": png(), "1.txt": b"red"}),
            lambda: os.truncate("one.tar", 700),
        ),
        PAIRS,
    ),
    data(
        "captions of shards to classify by",
        "tar:one.tar",
        ("tar:one.tar has no labels to classify by", "?label=cls or ?label=KEY"),
        lambda: tar("one.tar", {"1.png": png(), "1.txt": b"red"}),
    ),
    data(
        "labels of shards under a key that is not there",
        "tar:one.tar?label=kind",
        ("no image with a label (1 without 'kind' in the .json: one.tar:1.json)", "'kind' of NAME.json"),
        lambda: tar("one.tar", {"1.png": png(), "1.json": b'{"label": 3}'}),
    ),
    data(
        "labels of shards that are numbers and names",
        "tar:one.tar",
        ("one.tar:1.cls has 0, one.tar:2.cls has 'ant'",),
        lambda: tar("one.tar", {"1.png": png(), "1.cls": b"0", "2.png": png(), "2.cls": b"ant"}),
    ),
    data(
        "a label of shards outside of the classes",
        "tar:one.tar?classes=2",
        ("one.tar:1.png has label 5, expected 0 to 1 of classes=2",),
        lambda: tar("one.tar", {"1.png": png(), "1.cls": b"5"}),
    ),
    data(
        "fewer factors than lists of shards",
        "tar:one.tar::two.tar?factors=2",
        ("factors=2: 1 for 2 patterns",),
        lambda: [tar(f"{name}.tar", {}) for name in ("one", "two")],
    ),
    data("a URL with a password", "tar:https://me:hush@host/a.tar", ("https://…@host/a.tar", "~/.netrc")),
    data(
        "a URL that is signed", "tar:https://host/a.tar?X-Sig=hush", ("https://host/a.tar?…", "written down")
    ),
    data("a URL of no storage", "tar:gopher://host/a.tar", ("gopher://host/a.tar", "s3://, gs://, https://")),
    data("a URL with a wild card", "tar:s3://bucket/*.tar", ("s3://bucket/*.tar", "train-{000..099}.tar")),
    data("no shard", "tar:one.tar", ("one.tar: not a tar file",), lambda: write("one.tar", "x" * 999), PAIRS),
    data(
        "a shard with a damaged name",
        "tar:one.tar",
        ("one.tar: damaged in a member's extended header",),
        both(
            lambda: tar("one.tar", {"ä" * 90 + ".png": png()}, tarfile.PAX_FORMAT),
            lambda: write("one.tar", pathlib.Path("one.tar").read_bytes().replace(b" path=", b"=path=")),
        ),
        PAIRS,
    ),
    data(
        "class names that cannot be said",
        "folder:photos",
        ("folder:photos: class name '_'", "expected words"),
        lambda: pngs("photos/_/1.png", "photos/cat/1.png"),
        PAIRS,
    ),
    data(
        "class names that are no text",
        "folder:photos",
        (r"folder:photos: class name 'caf\xe9': not UTF-8",),
        lambda: pngs("photos/caf\udce9/1.png", "photos/cat/1.png"),
        PAIRS,
    ),
    data(
        "evaluated on images of another size",
        "npz:mine.npz",
        ("npz:mine.npz (evaluation)", "(5, 5, 1), expected (8, 8, 1)", "digits (training)"),
        lambda: npz(side=5),
        role="eval_data",
    ),
    data(
        "retrieved among images of another size",
        "captioned_folder:photos",
        ("captioned_folder:photos (evaluation)", "(16, 16, 3)", "expected (8, 8, 3)"),
        both(lambda: pngs("photos/1.png", side=16), lambda: write("photos/1.txt", "red")),
        PAIRS,
        "eval_data",
    ),
    data(
        "evaluated on more classes",
        "npz:mine.npz",
        ("npz:mine.npz: 20 classes here, 10 in digits",),
        lambda: npz(labels=np.arange(20)),
        role="eval_data",
    ),
    data(
        "evaluated on other classes",
        "folder:photos",
        ("classes differ", "bird"),
        lambda: pngs("train/cat/1.png", "train/dog/1.png", "photos/cat/1.png", "photos/bird/1.png"),
        TRAIN.replace("=digits", "=folder:train"),
        "eval_data",
    ),
    data(
        "evaluated on captions",
        "captioned_folder:pairs",
        ("captioned_folder:pairs has no labels to classify by",),
        role="eval_data",
    ),
    Case(
        "a vocabulary that is none",
        f"{PAIRS} --config.contrastive.tokenizer=file:tokens.json",
        ("tokens.json: not a vocabulary",),
        lambda: write("tokens.json", "[]"),
    ),
    Case(
        "a vocabulary without a start",
        f"{PAIRS} --config.contrastive.tokenizer=file:tokens.json",
        ("tokens.json", "has none of <start>"),
        lambda: vocabulary("a", "b"),
    ),
]

DIRECTORIES = [
    Case(
        "a file for a run", TRAIN, ("workdir='run' is not a directory", "name another"), lambda: write("run")
    ),
    Case(
        "a run below a file",
        TRAIN.replace("=run", "=file/run"),
        ("workdir='file/run' cannot be made", "file is not a directory"),
        lambda: write("file"),
    ),
    Case(
        "a run that cannot be made",
        TRAIN.replace("=run", "=/proc/run"),
        ("/proc/run cannot be made", "another"),
    ),
    Case(
        "a run of a long name",
        TRAIN.replace("=run", "=" + 300 * "r"),
        ("cannot be used (File name too long)",),
    ),
    Case(
        "evaluate what is not there",
        "evaluate --workdir=x --evaluator=accuracy",
        ("'x' is no run directory",),
    ),
    Case(
        "evaluate a file",
        "evaluate --workdir=file --evaluator=accuracy",
        ("'file' is no run directory", "classact train"),
        lambda: write("file"),
    ),
    Case(
        "evaluate a damaged configuration",
        "evaluate --workdir=saved --evaluator=accuracy",
        ("saved/config.json cannot be read",),
        lambda: write("saved/config.json", '{"policy": '),
    ),
    Case(
        "evaluate another version's run",
        "evaluate --workdir=saved --evaluator=accuracy",
        ("saved/config.json is of another version", "steps=0"),
        lambda: change("saved/config.json", steps=0),
    ),
    Case(
        "evaluate without a checkpoint",
        "evaluate --workdir=saved --evaluator=accuracy",
        ("saved: the run has ended without a checkpoint",),
        lambda: shutil.rmtree("saved/checkpoints"),
    ),
    Case(
        "evaluate a damaged checkpoint",
        "evaluate --workdir=saved --evaluator=accuracy",
        ("saved/checkpoints/1/learner is damaged or incomplete",),
        lambda: cut("saved/checkpoints"),
    ),
    Case(
        "evaluate on other classes",
        "evaluate --workdir=saved --evaluator=accuracy --data=npz:mine.npz",
        ("npz:mine.npz: 20 classes here, 10 in the run in saved",),
        lambda: npz(labels=np.arange(20)),
    ),
    Case(
        "evaluate by a name that is taken",
        "evaluate --workdir=saved --evaluator=accuracy --name=test",
        ("name='test'", "an evaluator of that name", "choose another"),
    ),
    Case(
        "evaluate by a path",
        "evaluate --workdir=saved --evaluator=accuracy --name=a/b",
        ("name='a/b'", "named by a-z"),
    ),
    Case(
        "retrieval of a classifier",
        "evaluate --workdir=saved --evaluator=retrieval",
        ("kind='retrieval'", "accuracy", "task='classification'"),
    ),
    Case("join what is not there", "actors --workdir=x", ("'x' is no run directory", "classact train")),
    Case(
        "join a run that has ended", "actors --workdir=saved", ("saved: the run has ended", "nothing to join")
    ),
    Case(
        "join a synchronous run",
        "actors --workdir=saved",
        ("saved: a synchronous run is one loop",),
        both(
            lambda: os.remove("saved/result.json"), lambda: change("saved/config.json", launch="synchronous")
        ),
    ),
    Case(
        "join a data set that the run has not",
        "actors --workdir=saved --dataset=digitz",
        ("dataset='digitz'", "the experiment has digits"),
        lambda: os.remove("saved/result.json"),
    ),
    Case("status of what is not there", "status --workdir=x", ("x is no run directory",)),
    Case(
        "status of an empty folder",
        "status --workdir=x",
        ("x is no run directory", "classact train"),
        lambda: os.mkdir("x"),
    ),
    Case(
        "status of another configuration",
        "status --workdir=saved",
        ("saved/config.json is no run's configuration", "steps"),
        lambda: change("saved/config.json", steps=None),
    ),
    Case(
        "status of a damaged result",
        "status --workdir=saved",
        ("saved/result.json is damaged", "steps is 'many'", "a number"),
        lambda: change("saved/result.json", steps="many"),
    ),
    Case(
        "status of damaged addresses",
        "status --workdir=saved",
        ("saved/endpoints.json is damaged", "addresses"),
        lambda: write("saved/endpoints.json", "[]"),
    ),
    Case(
        "status of damaged metrics",
        "status --workdir=saved",
        ("saved/metrics/learner.jsonl, line 1 is no metrics record",),
        lambda: write("saved/metrics/learner.jsonl", '{"step": "x"}\n'),
    ),
    Case("logs of what is not there", "logs --workdir=x", ("x is no run directory", "classact train")),
    Case("logs of a run without", "logs --workdir=saved", ("saved has no logs", "processes")),
    Case("compare what is not there", "compare x", ("x is no run directory",)),
    Case("compare files", "compare file", ("file is no run directory: it is a file",), lambda: write("file")),
    Case(
        "compare a damaged configuration",
        "compare saved",
        ("saved/config.json is damaged",),
        lambda: write("saved/config.json", "{"),
    ),
    Case(
        "compare a damaged result",
        "compare saved",
        ("saved/result.json is damaged",),
        lambda: write("saved/result.json", "{"),
    ),
    Case("compare by an unknown metric", "compare saved --metric=top1", ("metric='top1'", "eval/test/top1")),
    Case("compare with no baseline", "compare saved --baseline=x", ("x is no run directory",)),
    Case(
        "compare what was measured differently",
        "compare saved saved_pairs",
        ("no main metric is one of all runs", "--metric", "eval/test/top1"),
    ),
    Case(
        "a report below a file",
        "compare saved --out=file/report.html",
        ("--out=file/report.html: cannot be written", "name another"),
        lambda: write("file"),
    ),
    Case("a target that is no share", "compare saved --target=80", ("--target=80", "above 0 and up to 1")),
    Case("a target that is no number", "compare saved --target=most", ("--target=most", "such as 0.8")),
    Case(
        "charts below a file",
        "compare saved --charts=file/charts",
        ("--charts=file/charts: cannot be written", "name another folder"),
        lambda: write("file"),
    ),
    Case("figures in place of a folder", "compare saved --csv=saved", ("--csv=saved: cannot be written",)),
    Case(
        "a table in place of a folder", "compare saved --latex=saved", ("--latex=saved: cannot be written",)
    ),
    Case("a report in place of a folder", "compare saved --out=saved", ("--out=saved: cannot be written",)),
    Case(
        "icons of no package",
        "data icons --out=x --iconify=saved --emojibase=saved",
        ("saved is no unpacked npm package", "package.json"),
    ),
    Case(
        "icons of a package of another kind",
        "data icons --out=x --iconify=. --emojibase=.",
        ("collections.json: cannot be read",),
        lambda: write("package.json", '{"version": "1"}'),
    ),
]


def mine(name, text, words, argument="mine.py"):
    command = TRAIN.replace(str(CONFIGS / "classification.py"), argument)
    return Case(name, command, words, config_file(text))


FILES = [
    mine(
        "a configuration that is not there",
        "",
        ("--config=other.py", "no file other.py", "experiments/"),
        "other.py",
    ),
    mine("a folder of configurations", "", ("it is a directory, name a file in it",), str(CONFIGS)),
    mine("a mistake of syntax", "def get_config(:\n", ("--config=mine.py: line 1: SyntaxError",)),
    mine("no text", "\0", ("--config=mine.py", "null bytes")),
    mine("no get_config", "config = 1\n", ("--config=mine.py", "has no function get_config")),
    mine("an error at the top", "import no_such_module\n", ("line 1: ModuleNotFoundError", "no_such_module")),
    mine("an unknown name", "def get_config():\n    return unknown\n", ("line 2: NameError", "unknown")),
    mine("a key", "def get_config():\n    return {}['a']\n", ("line 2: KeyError: 'a'",)),
    mine(
        "a file that the configuration reads",
        "def get_config():\n    return open('absent')\n",
        ("line 2: FileNotFoundError", "absent"),
    ),
    mine("nothing returned", "def get_config():\n    pass\n", ("returned a NoneType", "ConfigDict")),
    mine("a plain dict", "def get_config():\n    return {}\n", ("returned a dict", "base.get_config()")),
    mine(
        "a part too many",
        "def get_config():\n    pass\n",
        ("takes no part", "--config=mine.py"),
        "mine.py:one",
    ),
    mine("a part too few", "def get_config(part):\n    pass\n", ("needs a part", "--config=mine.py:PART")),
    Case(
        "an unknown part",
        TRAIN.replace("classification.py", "demo.py:uniforn"),
        ("demo.py:uniforn", "expected one of demo.py:reference, demo.py:uniform"),
    ),
    Case(
        "fields of another configuration",
        "train --config=mine.py --workdir=run",
        ("missing field", "more", "base.get_config()"),
        config_file(
            "import ml_collections as m\ndef get_config():\n    return m.ConfigDict({'policy': 'rho'})\n"
        ),
    ),
    Case(
        "an unknown field in a file",
        "train --config=mine.py --workdir=run",
        ("unknown field polcy", "did you mean policy"),
        from_base("config.polcy = 'rho'"),
    ),
    Case(
        "another type in a file",
        "train --config=mine.py --workdir=run",
        ("steps", "int"),
        from_base("config.steps = '100'"),
    ),
]

REFERENCES = [
    Case(
        "no run of a reference",
        f"{SELECT}=x",
        ("reference.checkpoint='x'", "no run directory", "classact train"),
    ),
    Case("a file for a reference", f"{SELECT}=file", ("'file': no run directory",), lambda: write("file")),
    Case(
        "a reference without a checkpoint",
        f"{SELECT}=saved",
        ("reference.checkpoint='saved'", "no complete checkpoint"),
        lambda: shutil.rmtree("saved/checkpoints/1"),
    ),
    Case(
        "a damaged checkpoint",
        f"{SELECT}=saved",
        ("reference.checkpoint='saved'", "damaged or incomplete"),
        lambda: cut("saved/checkpoints"),
    ),
    Case(
        "a damaged configuration of a reference",
        f"{SELECT}=saved",
        ("reference.checkpoint='saved'", "config.json"),
        lambda: write("saved/config.json", "{}"),
    ),
    Case(
        "a damaged result of a reference",
        f"{SELECT}=saved",
        ("reference.checkpoint='saved'", "result.json is damaged"),
        lambda: write("saved/result.json", "{"),
    ),
    Case(
        "a reference of another architecture",
        f"{SELECT}=saved --config.reference.model=vit_mu_2_1",
        ("holds a vit_mu_1_1", "reference.model is vit_mu_2_1"),
    ),
    Case(
        "a reference for other patches",
        f"{SELECT}=saved --config.reference.patch_size=2",
        ("it has patch_size=4", "reference.patch_size is 2"),
    ),
    Case(
        "a reference for other classes",
        f"{SELECT}=saved --config.train_data=npz:mine.npz",
        ("other classes than those of npz:mine.npz", "10 classes in the reference, 3 in the data"),
        lambda: npz(labels=np.arange(20) % 3),
    ),
    Case(
        "a reference of another task",
        f"{SCORE_PAIRS}=saved",
        ("trained with task='classification'", "this run has 'contrastive'"),
    ),
    Case(
        "a reference of another tool that does not say how it reads texts",
        f"{SCORE_PAIRS}={SPECS['hf_siglip']}",
        ("does not say its tokenizer", "?tokenizer=SPEC"),
    ),
    Case(
        "a reference of another tool that is cut off",
        f"{SELECT}=hf:copied",
        ("hf:copied", "config.json"),
        lambda: (shutil.copytree(FIXTURES / "hf_dinov2", "copied"), cut("copied")),
    ),
    Case(
        "class names without texts",
        f"{SELECT}=saved --config.reference.head=zero_shot",
        ("reference.head='zero_shot'", "has no text tower"),
    ),
    Case(
        "class names of no reference",
        f"{TRAIN} --config.reference.head=zero_shot",
        ("reference.head='zero_shot'", "reference.checkpoint"),
    ),
    Case(
        "a reference that saw what is learned from",
        f"{SELECT}=saved --config.policy=rho {REST}",
        ("needs a reference trained with", "held_out", "this one had"),
    ),
]

START = f"{TRAIN} --config.learner.init"
STARTS = [
    Case("weights from nowhere", f"{START}=nowhere", ("learner.init='nowhere': no run directory",)),
    Case(
        "weights of another model",
        f"{START}=saved --config.learner.model=vit_mu_2_1",
        ("learner.init='saved'", "not those of vit_mu_2_1", "missing (first: block_1/"),
    ),
    Case(
        "weights for other images",
        f"{HARD} --config.scorer.init=saved --config.scorer.patch_size=2",
        ("scorer.init='saved'", "of another shape (first: patch_embedding/kernel [16, 64] where [4, 64]"),
    ),
    Case(
        "weights of another tool and of another model",
        f"{START}={SPECS['timm_map']}",
        ("it has the options", "learner.model=init"),
    ),
    Case(
        "a model of no weights", f"{TRAIN} --config.learner.model=init", ("learner.init=''", "what to start")
    ),
    Case(
        "a probe of captions",
        f"{PAIRS} --config.contrastive.tokenizer=icons --from=saved --out=probed".replace(
            "train", "probe", 1
        ).replace("--workdir=run ", ""),
        ("task='contrastive'", "'classification' for a linear probe"),
    ),
    Case("damaged weights", f"{START}=saved", ("damaged or incomplete",), lambda: cut("saved/checkpoints")),
    Case(
        "what is frozen must be there",
        f"{TRAIN} --config.learner.freeze=all_but_head",
        ("learner.freeze='all_but_head'", "empty without learner.init"),
    ),
    Case(
        "layers that there are not",
        f"{TRAIN} --config.learner.model=haiku_mlp --config.learner.layer_decay=0.7",
        ("learner.layer_decay=0.7", "no numbered blocks"),
    ),
    Case(
        "a size that patches do not divide",
        f"{HARD} --config.scorer.image_size=6",
        ("scorer.model='vit_mu_1_1'", "patch_size=4 does not divide the image of 6×6"),
    ),
    Case(
        "wide images to be resized",
        f"{TRAIN} --config.train_data=npz:mine.npz --config.learner.image_size=4",
        ("learner.image_size=4: must be 0", "only square ones are resized"),
        lambda: np.savez("mine.npz", image=np.zeros((20, 8, 12, 1), np.uint8), label=np.arange(20) % 10),
    ),
]

LAUNCH = [
    Case("Slurm that is not here", f"{TRAIN} --launch=slurm", ("sbatch", "not on PATH", "--launch=slurm")),
    Case(
        "Ray that is not here",
        f"{TRAIN} --launch=ray",
        ("no Ray cluster answers at", "ray start"),
    ),
]

CASES = COMMAND_LINE + ONE_FIELD + TOGETHER + DATA + DIRECTORIES + FILES + REFERENCES + STARTS + LAUNCH
# Those that are also typed in a shell: what is parsed, opened and shaped first ends alike.
IN_A_SHELL = ["a mistyped field", "images that are none", "evaluate a damaged checkpoint"]


def write_run(folder, config):
    """What a run of one update leaves that has ended, but for its checkpoint."""
    resolved = resolution.resolve(config.to_dict())
    write(folder / "config.json", json.dumps(resolved.to_dict() | {"launch": "processes"}))
    write(folder / "result.json", json.dumps({"status": "completed", "steps": 1}))
    return resolved


def save_checkpoint(folder, resolved):
    (own,) = resolved.data_sets.values()
    shape = shapes.data_shape(resolved, sources.open_train_source(resolved, own))
    change(folder / "config.json", started={"data": {"digits": shape.described()}})
    checkpointer = checkpoints.Checkpointer(folder / "checkpoints", classes=shape.classes)
    checkpointer.save(1, training.init_state(learning.trained_models(resolved, shape), 0))
    checkpointer.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with all that a command may name."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("pairs/1", "pairs/2"):
        write(folder / f"{name}.png", png())
        write(folder / f"{name}.txt", "a red square")
    small = {**SMALL, "steps": 1}
    images, pairs = classification.get_config(), image_text.get_config()
    images.update_from_flattened_dict({**small, "train_data": "digits"})
    pairs.update_from_flattened_dict({**small, "train_data": f"captioned_folder:{folder}/pairs"})
    save_checkpoint(folder / "saved", write_run(folder / "saved", images))
    write_run(folder / "saved_pairs", pairs)
    return folder


@pytest.fixture
def place(saved, tmp_path, monkeypatch):
    """The folder that a command runs in, on a machine without a Ray cluster."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in ("SLURM_JOB_ID", "CLASSACT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    return place


@pytest.fixture
def nothing_starts(monkeypatch):
    """A process, or a node as a thread, is an error."""

    class Guarded(subprocess.Popen):
        def __init__(self, command, *args, **kwargs):
            words = " ".join(map(str, command))
            assert any(harmless in words for harmless in HARMLESS), f"a process starts: {words}"
            super().__init__(command, *args, **kwargs)

    def start(*args, **kwargs):
        raise AssertionError("a run starts")

    monkeypatch.setattr(subprocess, "Popen", Guarded)
    for module, name in (
        (threads, "run_threads"),
        (processes, "run_processes"),
        (jobs, "run_synchronous"),
        (attach_actors, "run"),
    ):
        monkeypatch.setattr(module, name, start)


def prepared(case, saved):
    """Makes a case's files; returns what there is."""
    for name in ("saved", "saved_pairs", "pairs"):
        if name in re.split(r"[\s=:?]", case.command):
            shutil.copytree(saved / name, name)
    case.prepare()
    return listing()


def listing():
    """Every file and folder with its size and time, which tell a change."""
    found = {}
    for path in pathlib.Path().rglob("*"):
        state = path.stat()
        found[str(path)] = (path.is_dir(), path.is_file() and state.st_size, state.st_mtime_ns)
    return found


def check(case, status, out, err):
    assert status == 2, err
    assert out == ""
    # What was found of the data may have been said before.
    lines = [line for line in err.splitlines() if not line.startswith(FOUND)]
    assert len(lines) == 1, err
    assert lines[0].startswith("classact: ")
    assert "Traceback" not in err
    for word in case.words:
        assert word in lines[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_ends_with_a_line_that_says_what_to_do(
    case, place, saved, capsys, monkeypatch, clean_flags, nothing_starts
):
    before = prepared(case, saved)
    if "--launch=slurm" in case.command:
        monkeypatch.setenv("PATH", str(place))
    status = cli.main(["classact", *shlex.split(case.command)])
    check(case, status, *capsys.readouterr())
    assert listing() == before


@pytest.mark.parametrize("name", IN_A_SHELL)
def test_a_shell_sees_the_same(name, place, saved):
    (case,) = (case for case in CASES if case.name == name)
    before = prepared(case, saved)
    done = subprocess.run(
        [pathlib.Path(sys.executable).with_name("classact"), *shlex.split(case.command)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    check(case, done.returncode, done.stdout, done.stderr)
    assert listing() == before


def test_without_the_replay_servers_python_nothing_starts(
    place, saved, capsys, monkeypatch, clean_flags, nothing_starts
):
    monkeypatch.setenv("CLASSACT_REPLAY_PYTHON", "/nowhere/python")
    words = ("CLASSACT_REPLAY_PYTHON=/nowhere/python: the replay server's Python is not there",)
    case = Case("no Python for the replay's server", TRAIN, words)
    before = prepared(case, saved)
    check(case, cli.main(["classact", *shlex.split(case.command)]), *capsys.readouterr())
    assert listing() == before


def test_the_table_has_no_name_twice():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)
