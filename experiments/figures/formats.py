"""One data set in five formats: what a run learns must not depend on the files that its images come from.

Command:
    classact sweep experiments/figures/formats.py --out=runs/figures --launch=synchronous

Fashion-MNIST as IDX files and as WebDataset shards, parquet, TFRecord and ArrayRecord files, which
`written.py` writes. The same model and seeds for each; docs/data.md has the result.
"""

import ml_collections

from classact.experiments import base
from classact.experiments.figures import written

IDX = "idx"
SEEDS = (0, 1)
RUNS = tuple(f"{kind}-{seed}" for seed in SEEDS for kind in (IDX, *written.FORMATS))


def get_config(part: str) -> ml_collections.ConfigDict:
    """The configuration of `FORMAT-SEED`."""
    kind, seed = part.split("-")
    config = base.get_config()
    config.policy = "uniform"
    config.train_data = (
        "fashion_mnist" if kind == IDX else f"classact.experiments.figures.written:open_written:{kind}"
    )
    config.learner.model = "vit_mu_1_1"
    config.patch_size = 7
    config.batch_size = 128
    config.steps = 300
    config.seed = int(seed)
    config.evaluation.every = 150
    return config


def baseline(part: str) -> str | None:
    """IDX of the same seed."""
    kind, seed = part.split("-")
    return None if kind == IDX else f"{IDX}-{seed}"
