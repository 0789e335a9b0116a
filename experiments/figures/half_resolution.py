"""What scorers at half the resolution cost in steering, and what they save.

Command:
    classact sweep experiments/figures/half_resolution.py --out=runs/figures

The icons have 32×32 pixels. `enlarged`: the learner, Mu_6-1 with patches of 8, looks at them at 64², the
scorers, Mu_1-1, at 64² (`full`) or 32² (`half`). That is a quarter of the patches, but no detail is
lost, as there is none between 32 and 64. `native`: the same numbers of patches, now of 4 pixels, at 32² and
16², where half the resolution does lose it. 30 % of the labels are redrawn, references are clean and
look at what the scorers do. Three seeds, test half. A run's name is its images, its scorers
and its seed: `native-half-0`, whose reference is `native-reference_half-0`.
"""

import ml_collections

from classact.experiments.figures import parts
from classact.experiments.figures.parts import Part

# Images: sides that the learner and scorers of either kind look at, and of a patch.
_SIDES = {"enlarged": {"full": 64, "half": 32}, "native": {"full": 32, "half": 16}}
_PATCHES = {"enlarged": 8, "native": 4}
_SCORERS = ("full", "half")
RUNS = tuple(
    f"{images}-{how}-{seed}" for images in _SIDES for seed in range(3) for how in ("uniform", *_SCORERS)
)


def get_config(name: str) -> ml_collections.ConfigDict:
    """The configuration of a run, or of a reference.

    Raises:
        ValueError: for another name.
    """
    images, how, seed = _parsed(name)
    is_reference, scorers = how.startswith("reference_"), how.removeprefix("reference_")
    if is_reference:
        part = Part("reference", noise=0.0, learner=Part.scorer, seed=seed)
    else:
        part = Part("classact" if how in _SCORERS else "uniform", learner=parts.SMALL, seed=seed)
    config = parts.get_config(part.name)
    config.patch_size = _PATCHES[images]
    config.learner.image_size = _SIDES[images][scorers if is_reference else "full"]
    if how in _SCORERS:
        config.scorer.image_size = _SIDES[images][how]
        config.reference.checkpoint = f"{images}-reference_{how}-{seed}"
    return config


def baseline(name: str) -> str | None:
    """The uniform run on the same images."""
    images, how, seed = _parsed(name)
    return f"{images}-uniform-{seed}" if how in _SCORERS else None


def _parsed(name: str) -> tuple[str, str, int]:
    images, _, rest = name.partition("-")
    how, _, seed = rest.partition("-")
    known = ("uniform", *_SCORERS, *(f"reference_{scorers}" for scorers in _SCORERS))
    if images not in _SIDES or how not in known or not seed.isdecimal():
        raise ValueError(f"{name!r}: expected IMAGES-SCORERS-SEED, such as native-half-0")
    return images, how, int(seed)
