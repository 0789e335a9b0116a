"""RHO-LOSS with its published defaults, as a plain PyTorch loop; `rho_loss.py --torch=PYTHON` runs it.

Command (in an environment with torch and numpy alone, not this project's):
    PYTHON benchmarks/rho_loss_torch.py --data=FILE.npz --out=FILE.json --seed=0 --steps=2000

The defaults are its authors': 320 examples are scored by the learner itself, the 32 with the largest
loss less that of the holdout model are trained on; AdamW, learning rate 1e-3, weight decay 0.01,
constant. The models are this benchmark's and not their ResNet-18, of which an update takes some
25 times as long: ViT Mu_6-2, or Mu_6-1, and, as the holdout model, Mu_1-1.

FILE.npz has `image` uint8[N, 32, 32, 3], `label` int64[N], `holdout` bool[N] and the same of
the images that are measured on, `eval_image` and `eval_label`.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_BATCH, _SCORED = 32, 320
_HOLDOUT_BATCH = 64
_PATCH = 8
_EVALUATIONS = 20
# Width, depth and heads.
_LEARNERS = {"mu_6_2": (128, 6, 2), "mu_6_1": (64, 6, 1)}


class ViT(nn.Module):
    """A vision transformer for images uint8[B, 3, 32, 32]."""

    def __init__(self, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, _PATCH, _PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (32 // _PATCH) ** 2 + 1, width) * width**-0.5)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits, float32[B, K]."""
        tokens = self.patches(pixels.float() / 127.5 - 1.0).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens)[:, 0]))


def train_holdout(images: torch.Tensor, labels: torch.Tensor, classes: int, steps: int) -> ViT:
    """The holdout model: Mu_1-1, uniform batches."""
    model = ViT(64, 1, 1, classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    for rows in _order(len(images), _HOLDOUT_BATCH, steps):
        _update(model, optimizer, images[rows], labels[rows])
    return model.eval()


def _order(count: int, batch: int, steps: int) -> Iterator[torch.Tensor]:
    """Rows of `steps` batches, epoch by epoch, each in an order of its own."""
    left = torch.zeros(0, dtype=torch.long)
    for _ in range(steps):
        if len(left) < batch:
            left = torch.cat([left, torch.randperm(count)])
        yield left[:batch]
        left = left[batch:]


def _update(model: ViT, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


@torch.no_grad()
def losses(model: ViT, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of each example, float32[N]."""
    parts = zip(images.split(500), labels.split(500), strict=True)
    return torch.cat([functional.cross_entropy(model(x), y, reduction="none") for x, y in parts])


@torch.no_grad()
def accuracy(model: ViT, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers."""
    parts = zip(images.split(500), labels.split(500), strict=True)
    return float(torch.cat([model(x).argmax(1) == y for x, y in parts]).float().mean())


def main() -> None:
    """Writes the curve: by evaluation the step, top-1, CPU seconds and seconds; evaluation costs neither."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    with np.load(options.data) as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files}
    images, eval_images = (found[name].permute(0, 3, 1, 2).contiguous() for name in ("image", "eval_image"))
    labels, held = found["label"].long(), found["holdout"]
    classes = int(labels.max()) + 1
    clock = _Clock()
    holdout = train_holdout(images[held], labels[held], classes, options.holdout_steps)
    images, labels = images[~held], labels[~held]
    irreducible = losses(holdout, images, labels)
    model = ViT(*_LEARNERS[options.learner], classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    curve = []
    for step, rows in enumerate(_order(len(images), _SCORED, options.steps), 1):
        score = losses(model, images[rows], labels[rows]) - irreducible[rows]
        chosen = rows[score.topk(_BATCH).indices]
        _update(model, optimizer, images[chosen], labels[chosen])
        if step % max(1, options.steps // _EVALUATIONS) == 0:
            with clock.paused():
                top1 = accuracy(model, eval_images, found["eval_label"])
            cpu, wall = clock.read().tolist()
            curve.append({"step": step, "top1": top1, "cpu_s": cpu, "wall_s": wall})
            print(curve[-1], flush=True)
    with open(options.out, "w") as file:
        json.dump(curve, file)


class _Clock:
    """CPU seconds and seconds since it was made, but for pauses."""

    def __init__(self) -> None:
        self._began = np.array([time.process_time(), time.monotonic()])

    def read(self) -> np.ndarray:
        """(CPU seconds, seconds)."""
        return np.array([time.process_time(), time.monotonic()]) - self._began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count what is done within."""
        before = self.read()
        yield
        self._began += self.read() - before


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--holdout_steps", type=int, default=1000)
    parser.add_argument("--learner", choices=_LEARNERS, default="mu_6_2")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
