"""A whole program on labelled shards that are read in sequence."""

import collections
import io
import json
import re
import signal
import tarfile

import numpy as np
from PIL import Image
from program_runs import result_of, start, train, wait_until

from classact.data.specs import open_source
from classact.nodes import checkpoints


def write_digits(folder):
    """All digits to train on in seven shards, sorted by class as nobody should; returns how many."""
    digits = open_source("digits", "train")
    batch = digits.batch(np.arange(digits.num_examples))
    order = np.argsort(batch["label"], kind="stable")
    for number, part in enumerate(np.array_split(order, 7)):
        with tarfile.open(folder / f"digits-{number}.tar", "w") as shard:
            for index in part.tolist():
                buffer = io.BytesIO()
                Image.fromarray(batch["image"][index, :, :, 0]).save(buffer, "PNG")
                for ending, content in (("png", buffer.getvalue()), ("cls", b"%d" % batch["label"][index])):
                    header = tarfile.TarInfo(f"{index:04d}.{ending}")
                    header.size = len(content)
                    shard.addfile(header, io.BytesIO(content))
    (folder / "classes.txt").write_text("\n".join(digits.class_names))
    return digits.num_examples


def test_shards_in_sequence_go_on_exactly_with_other_readers(tmp_path):
    (tmp_path / "tmp").mkdir()
    examples = write_digits(tmp_path)
    shards = (
        f"tar:{tmp_path}/digits-{{0..6}}.tar?classes=classes.txt&channels=1&size=32&order=shards&buffer=200"
    )
    fields = (
        f"--config.train_data={shards}", "--config.policy=uniform", "--config.patch_size=16",
        "--config.replay.images=encoded", "--config.augment=crop", "--config.eval_share=0",
        "--config.label_noise=0", "--config.steps=70", "--config.checkpoint_every=15",
        "--config.record_examples=True", "--config.evaluation.every=70", "--launch=threads",
    )  # fmt: skip

    process = start(tmp_path, "run", *fields, "--config.inference.run_loops=2")

    def begun():
        return (checkpoints.latest_step(tmp_path / "run" / "checkpoints") or 0) >= 15

    wait_until(begun, process, tmp_path / "run.out")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    done = train(tmp_path, "run", *fields, "--config.inference.run_loops=3")
    assert done.returncode == 0, done.stderr
    # 8×8 pixels as PNG files are smaller than the 32×32 that they are trained as.
    (carried,) = re.findall(r"the replay carries encoded: (\d+) bytes .* of the 1,\d+ with", done.stderr)
    assert int(carried) < 300
    assert "goes on from step" in done.stderr and result_of(tmp_path, "run")["status"] == "completed"

    updates = {}
    for line in (tmp_path / "run" / "trained_examples.jsonl").read_text().splitlines():
        record = json.loads(line)
        updates[record["step"]] = record["tar"]
    counts = collections.Counter(index for ids in updates.values() for index in ids)
    # 70 updates of 32 are an epoch and a half: of the first, nothing was left out.
    assert len(updates) == 70 and counts.total() == 2240 and len(counts) == examples
    # It was interrupted once: two batches of the table and two of each run loop may have come again.
    assert sum(max(0, count - 2) for count in counts.values()) <= 2 * 32 + 2 * 2 * 32 + 3 * 2 * 32
