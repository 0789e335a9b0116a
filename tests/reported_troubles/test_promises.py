"""What the documents promise: a user's own code, errors in it, captions, help, what a newcomer reads."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from classact.launch.commands import cli, run
from classact.launch.engines.outcome import Outcome

ROOT = pathlib.Path(cli.__file__).resolve().parents[2]
CONFIGS = ROOT / "experiments" / "configs"
SMALL = (
    "--config.patch_size=4 --config.learner.model=vit_mu_1_1 --config.scorer.model=vit_mu_1_1 "
    "--config.batch_size=8 --config.steps=4 --config.log_every=2 --workdir=run"
)
TRAIN = f"train --config={CONFIGS}/classification.py {SMALL}"
PAIRS = f"train --config={CONFIGS}/image_text.py {SMALL} --config.train_data=captioned_folder:pairs"

FILES = {
    "my_sources.py": """
        import numpy as np
        from classact.data.source import ArraySource
        from classact.data.views import SourceView
        from classact.data.specs import register_source

        @register_source("squares")
        def open_squares(argument, split, *, count="60"):
            labels = np.arange(int(count)) % 3
            images = np.zeros((int(count), 8, 8, 1), np.uint8)
            images += 60 * labels[:, None, None, None].astype(np.uint8)
            return ArraySource(argument or "squares", images, labels, 3)

        class Wide(SourceView):
            def batch(self, indices):
                batch = super().batch(indices)
                return {**batch, "label": batch["label"].astype(np.int64)}

        def open_wide(argument, split):
            return Wide(open_squares(argument, split))

        def open_nothing(argument, split):
            return {}["nothing"]

        def open_list(argument, split):
            return []
    """,
    "my_policies.py": """
        import os
        import numpy as np
        from classact.selection import policies

        @policies.register_policy("mine", online="learner")
        def mine(online, reference):
            return online["loss"]

        @policies.register_policy("missing", online="learner")
        def missing(online, reference):
            return online["entropy"]

        @policies.register_policy("wide", online="learner")
        def wide(online, reference):
            return online["logits"]

        @policies.register_policy("numpy", online="learner")
        def numpy(online, reference):
            return np.asarray(online["loss"])

        @policies.register_policy("late", online="learner")
        def late(online, reference):
            return online["entropy"] if "CLASSACT_TASK" in os.environ else online["loss"]
    """,
    "my_models.py": """
        from classact.models import registry

        def broken(name, num_classes, image_shape, patch_size):
            sizes = {"num_classes": num_classes, "image_shape": image_shape, "patch_size": 4}
            model = registry.create("vit_mu_1_1", **sizes)

            def apply(variables, batch, *, train, rng=None):
                outputs, state = model.apply(variables, batch, train=train)
                return (outputs if not train else {"logits": outputs["logit"]}), state

            return registry.Model(name, model.init, apply)

        def narrow(name, num_classes, image_shape, patch_size):
            return registry.create("vit_mu_1_1", num_classes=2, image_shape=image_shape, patch_size=4)

        def tower(name, num_classes, image_shape, patch_size):
            sizes = {"num_classes": num_classes, "image_shape": image_shape, "patch_size": 4}
            made = registry.create("vit_mu_1_1", **sizes)
            return registry.Model(name, made.init, made.apply)
    """,
    "my_pairs.py": """
        import numpy as np
        from classact.data import specs
        from classact.data.views import SourceView

        class Labelled(SourceView):
            def __init__(self, source):
                super().__init__(source)
                self.captioned, self.num_classes, self.class_names = True, 0, None
                self.image_of = np.arange(source.num_examples)

            def batch(self, indices):
                batch = self.source.batch(indices)
                captions = np.empty(len(indices), object)
                captions[:] = self.caption_at(indices)
                return {"id": batch["id"], "image": batch["image"], "caption": captions}

            def caption_at(self, indices):
                return [f"digit number {i}" for i in indices]

        def open_pairs(argument, split):
            return Labelled(specs.open_source("digits", split))
    """,
    "my_tokenizer.py": """
        from classact.data.tokenizer import BaseTokenizer

        class Bytes(BaseTokenizer):
            def tokens(self, captions):
                return [list(caption.encode()) for caption in captions]

            def decode(self, text):
                return [bytes(token for token in row if token < 256).decode() for row in text]

        def make(context_length):
            return Bytes(259, context_length, start_id=257, end_id=258, pad_id=256)
    """,
    "imports_it.py": """
        import my_sources
        from classact.experiments.configs import classification

        def get_config():
            config = classification.get_config()
            config.train_data = "squares?count=30"
            return config
    """,
    "registers_it.py": """
        from classact.data import specs
        from classact.experiments.configs import classification

        @specs.register_source("cubes")
        def open_cubes(argument, split):
            return specs.open_source("digits", split)

        def get_config():
            config = classification.get_config()
            config.train_data = "cubes"
            return config
    """,
}

pytestmark = pytest.mark.usefixtures("clean_flags")


def write_files(place):
    for name, text in FILES.items():
        (place / name).write_text(textwrap.dedent(text))


@pytest.fixture
def place(users_place):
    """Where a user starts: modules of theirs, and pictures with captions of 19 words."""
    write_files(users_place)
    (users_place / "pairs").mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(users_place / "pairs" / f"{number}.png")
        words = f"vintage car number {number} with red leather seats and chrome bumpers, seen from the left"
        (users_place / "pairs" / f"{number}.txt").write_text(f"{words} in a dusty garage")
    return users_place


@dataclasses.dataclass(frozen=True)
class Row:
    """A command, its exit status before anything starts, and patterns of what it says in one line each.

    Attributes:
        name: the trouble.
        command: after `classact`.
        status: 0 if it would start.
        said: patterns, each of which some line of standard error has.
        fields: of the resolved configuration, by dotted name.
    """

    name: str
    command: str
    status: int = 0
    said: tuple[str, ...] = ()
    fields: tuple[tuple[str, object], ...] = ()


OWN = f"{TRAIN} --config.train_data=my_sources:open_squares"
ROWS = [
    Row("a source of one's own", OWN, said=("my_sources:open_squares: 60 images, 3 classes",)),
    Row(
        "with an argument and an option",
        f"{TRAIN} --config.train_data='my_sources:open_squares:red?count=30'",
        said=(r"my_sources:open_squares:red\?count=30: 30 images",),
    ),
    Row(
        "a source that the configuration's import registers",
        f"{TRAIN.replace(f'{CONFIGS}/classification.py', 'imports_it.py')}",
        # As all nodes find it.
        fields=(("train_data", "my_sources:open_squares?count=30"),),
    ),
    Row(
        "a source that the configuration registers, which nodes do not run",
        f"{TRAIN.replace(f'{CONFIGS}/classification.py', 'registers_it.py')}",
        2,
        ("train_data='cubes'.*module of its own.*module:function",),
    ),
    Row(
        "a source that raises",
        f"{TRAIN} --config.train_data=my_sources:open_nothing",
        2,
        (r"'my_sources:open_nothing': KeyError: 'nothing' \(my_sources.py, line \d+\)",),
    ),
    Row(
        "a source that is none",
        f"{TRAIN} --config.train_data=my_sources:open_list",
        2,
        ("'my_sources:open_list' opened a list, expected",),
    ),
    Row(
        "a source that breaks its contract",
        f"{TRAIN} --config.train_data=my_sources:open_wide",
        2,
        (r"my_sources:open_wide: 'label' of a batch is int64\[2\], expected int32\[2\]",),
    ),
    Row(
        "a source of no such module",
        f"{TRAIN} --config.train_data=my_sorces:open_squares",
        2,
        ("no module my_sorces .*PYTHONPATH",),
    ),
    Row(
        "a data set's name",
        f"{TRAIN} --config.train_data=imagenet",
        2,
        ("unknown data source 'imagenet'.*folder:PATH.*tar:PATTERN",),
    ),
    Row(
        "another project's spec",
        f"{TRAIN} --config.train_data=webdataset:a/b.tar",
        2,
        ("tar:PATTERN",),
    ),
    Row("a path", f"{TRAIN} --config.train_data=photos/train", 2, ("a folder is folder:photos/train",)),
    Row("a policy of one's own", f"{OWN} --config.policy=my_policies:mine"),
    Row(
        "a policy of no such module",
        f"{TRAIN} --config.policy=my_polices:mine",
        2,
        ("there is no module my_polices, .*directory in which classact was started.*PYTHONPATH",),
    ),
    Row(
        "a KeyError in a policy",
        f"{TRAIN} --config.train_data=digits --config.policy=my_policies:missing",
        2,
        (r"policy='my_policies:missing': KeyError: 'entropy' \(my_policies.py, line 12\)",),
    ),
    Row(
        "a policy that gives no number an example",
        f"{TRAIN} --config.train_data=digits --config.policy=my_policies:wide",
        2,
        (r"policy='my_policies:wide': its score is float32\[16, 10\], expected float32\[16\]",),
    ),
    Row(
        "numpy in a policy",
        f"{TRAIN} --config.train_data=digits --config.policy=my_policies:numpy",
        2,
        (r"policy='my_policies:numpy': .*\(my_policies.py, line 20\); .*use jax.numpy",),
    ),
    Row(
        "a KeyError in a model",
        f"{TRAIN} --config.train_data=digits --config.learner.model=my_models:broken",
        2,
        (r"learner.model='my_models:broken': KeyError: 'logit' \(my_models.py, line \d+\)",),
    ),
    Row(
        "a model of other classes",
        f"{TRAIN} --config.train_data=digits --config.learner.model=my_models:narrow",
        2,
        (r"'logits' is float32\[8, 2\], expected float32\[8, 10\]",),
    ),
    Row(
        "a tokenizer of one's own",
        f"{PAIRS} --config.contrastive.tokenizer=my_tokenizer:make --config.contrastive.context_length=120",
        fields=(("contrastive.tokenizer", "my_tokenizer:make"),),
    ),
    Row(
        "the vocabulary of any data but the icons",
        PAIRS,
        said=(r"captioned_folder:pairs: 0.0 % of the 11 captions are longer than 75 tokens",),
        fields=(("contrastive.tokenizer", "clip"), ("contrastive.context_length", 77)),
    ),
    Row(
        "captions that are cut",
        f"{PAIRS} --config.contrastive.tokenizer=icons --config.contrastive.context_length=16",
        said=(r"warning: captioned_folder:pairs: 100.0 % of the 11 captions are longer than 14 tokens",),
    ),
    Row(
        "an unknown text tower",
        f"{PAIRS} --config.learner.text_model=foo",
        2,
        ("learner.text_model='foo'",),
    ),
    Row(
        "a model's name as others write it",
        f"{TRAIN} --config.train_data=digits --config.learner.model=vit_b_16",
        2,
        ("'vit_b_16': for patches of 16 pixels say 'vit_b' and patch_size=16",),
    ),
    Row(
        "a configuration without --config",
        f"train {CONFIGS}/classification.py --workdir=run",
        2,
        ("did you mean --config=.*classification.py",),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_before_anything_starts(row, place, capsys, monkeypatch):
    prepared = []
    monkeypatch.setattr(run, "run", lambda made, engine: prepared.append(made) or Outcome("completed"))
    assert cli.main(["classact", *shlex.split(row.command)]) == row.status
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    if row.status:
        assert len([line for line in lines if line.startswith("classact: ")]) == 1
    for pattern in row.said:
        assert any(re.search(pattern, line) for line in lines), lines
    config = prepared[0].config.to_dict() if prepared else {}
    for name, expected in row.fields:
        found = config
        for part in name.split("."):
            found = found[part]
        assert found == expected


COMMANDS = ("train", "evaluate", "actors", "status", "logs", "compare", "data")
FLAGS = {"train": "--launch=processes|threads", "logs": "Default: 10", "data": "--size=INT"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_lists_its_flags(command, capsys):
    assert cli.main(["classact", command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert not err and len(out.splitlines()) < 60
    assert FLAGS.get(command, "--") in out and "logtostderr" not in out
    if command == "train":
        assert "experiments/base.py" in out


def test_help_needs_no_configuration(place, capsys):
    assert cli.main(["classact", "train", "--config=missing.py", "--help"]) == 0
    assert "--workdir" in capsys.readouterr().out


_COMMAND = "import sys; sys.path.remove(''); from classact.launch.commands import cli; cli.entry_point()"
QUICK = (*shlex.split(SMALL.replace("--workdir=run", "")), "--config.evaluation.every=2")


def classact(place, *arguments, **variables):
    """Runs a program that is started in a directory which is not on PYTHONPATH, unless told otherwise."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        # As the installed command, which does not look for modules where it is started.
        [sys.executable, "-c", _COMMAND, *arguments],
        cwd=place,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_all_code_of_one_s_own_works_in_every_node(tmp_path):
    write_files(tmp_path)
    own = {
        "train_data": "my_pairs:open_pairs",
        "policy": "my_policies:mine",
        "learner.model": "my_models:tower",
        "learner.text_model": "text_mu_1_1",
        "contrastive.tokenizer": "my_tokenizer:make",
        "contrastive.context_length": "24",
    }
    fields = [f"--config.{name}={value}" for name, value in own.items()]
    config = f"--config={CONFIGS}/image_text.py"
    done = classact(tmp_path, "train", config, "--workdir=run", *QUICK, *fields, "--launch=processes")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed" and not any(result["restarts"].values())
    assert np.isfinite(result["final"]["eval/retrieval/i2t_r1"])


def test_an_error_in_a_policy_ends_the_run_at_once_with_its_traceback(tmp_path):
    write_files(tmp_path)
    fields = ["--config.train_data=digits", "--config.policy=my_policies:late"]
    # Where it is tried again, once is enough to see that.
    fields += ["--config.restarts_per_hour=1", f"--config={CONFIGS}/classification.py"]
    done = classact(tmp_path, "train", "--workdir=run", *QUICK, *fields, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert 'my_policies.py", line 24, in late' in done.stderr
    assert "an error in your own code: KeyError: 'entropy' (my_policies.py, line 24)" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed" and not any(result["restarts"].values())


def test_every_field_has_a_comment_of_its_own():
    lines = (ROOT / "experiments" / "base.py").read_text().splitlines()
    lines = lines[next(i for i, line in enumerate(lines) if line.startswith("def get_config")) :]
    lines += (ROOT / "experiments" / "model_fields.py").read_text().splitlines()
    fields = [i for i, line in enumerate(lines) if re.match(r'\s+"\w+": ', line)]
    assert len(fields) > 90
    bare = [lines[i].strip() for i in fields if not lines[i - 1].strip().startswith("#")]
    assert not bare


def test_super_batch_is_defined_where_it_first_occurs():
    said = (ROOT / "experiments" / "base.py").read_text()
    first = said.index("super-batch")
    assert "B = b / (1 − filter_ratio) examples" in said[first : first + 200]


@pytest.mark.parametrize("word", ["resume", "GPU", "super-batch", "tokenizer", "docs/extending.md"])
def test_the_words_that_people_search_for_are_in_the_readme(word):
    assert word in (ROOT / "README.md").read_text()


def test_a_table_says_what_a_death_costs():
    text = (ROOT / "docs" / "recovery.md").read_text()
    assert "docs/recovery.md" in (ROOT / "README.md").read_text()
    assert re.search(r"^\| who died .*\| .*repeated.*\| .*lost", text, re.MULTILINE)


def test_there_is_a_licence_with_notices():
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    notice = (ROOT / "NOTICE").read_text()
    for folder in ("icons", "templates", "vocabularies"):
        assert f"data/{folder}/LICENSES.md" in notice
    assert 'license="Apache-2.0"' in (ROOT / "setup.py").read_text()
