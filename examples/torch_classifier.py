"""A classifier in PyTorch that trains on the sub-batches of a selector.

    classact serve --config=experiments/configs/demo.py:classact --workdir=runs/selection
    python examples/torch_classifier.py --selection=runs/selection --updates=1000 \
        --eval=icons_eval.npz --out=runs/torch

The first line runs where classact is, the second in any environment with torch and classact-client.
`--eval` is an .npz with `image`, uint8[N, H, W, C], and `label`; `benchmarks/any_trainer.py` makes one of the
icons. It writes `eval.jsonl`, a line an evaluation, and `state.pt`: started again, it goes on from there.
"""

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from classact import client


def main() -> None:
    """Trains, and evaluates now and then."""
    flags = arguments()
    torch.manual_seed(flags.seed)
    torch.set_num_threads(flags.threads)
    flags.out.mkdir(parents=True, exist_ok=True)
    evaluation = dict(np.load(flags.eval))
    model = classifier(evaluation["image"].shape[-1], int(evaluation["label"].max()) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=flags.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, flags.learning_rate, total_steps=flags.updates, pct_start=0.1
    )
    update = 0
    with client.connect(flags.selection) as selection:
        saved = flags.out / "state.pt"
        if saved.exists():
            state = torch.load(saved, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            selection.load_state_dict(state["selection"])
            update = state["update"]
        dataset = selection.torch_dataset()
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=flags.workers)
        # From the first batch on: a selector takes its time to begin.
        started, waited, batches = 0.0, 0.0, iter(loader)
        while update < flags.updates:
            waited_from = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            if started:
                waited += time.perf_counter() - waited_from
            started = started or time.perf_counter()
            losses = functional.cross_entropy(
                model(pixels(batch["image"])), batch["label"].long(), label_smoothing=0.1, reduction="none"
            )
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            schedule.step()
            update += 1
            if update % flags.report_every == 0:
                selection.report(batch["id"], losses.detach())
            if update % flags.eval_every == 0 or update == flags.updates:
                line = {
                    "update": update,
                    "top1": top1(model, evaluation),
                    "loss": losses.mean().item(),
                    "wait_share": waited / (time.perf_counter() - started),
                }
                with (flags.out / "eval.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)
                place = selection.state_dict(batch)
                save(saved, update, place, model=model, optimizer=optimizer, schedule=schedule)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--selection", required=True, help="Run directory of classact serve, or tcp://HOST:PORT."
    )
    parser.add_argument("--eval", type=pathlib.Path, required=True, help="An .npz with image and label.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="Folder for what it writes.")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--eval-every", type=int, default=50)
    parser.add_argument("--report-every", type=int, default=25)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=0, help="Of the DataLoader.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def classifier(channels: int, classes: int, width: int = 48) -> nn.Module:
    """A small convolutional network for small images."""

    def block(inner: int, outer: int) -> list[nn.Module]:
        return [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width),
        *block(width, 2 * width),
        *block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def pixels(images: torch.Tensor) -> torch.Tensor:
    """float32[N, C, H, W] of uint8[N, H, W, C]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def top1(model: nn.Module, evaluation: dict[str, np.ndarray]) -> float:
    """The share of examples whose label is the model's."""
    model.eval()
    right = 0
    for start in range(0, len(evaluation["label"]), 500):
        images = torch.from_numpy(evaluation["image"][start : start + 500])
        found = model(pixels(images)).argmax(1).numpy()
        right += int((found == evaluation["label"][start : start + 500]).sum())
    model.train()
    return right / len(evaluation["label"])


def save(path: pathlib.Path, update: int, selection: dict[str, Any], **parts: Any) -> None:
    """Writes a state, whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    state = {"selection": selection, "update": update}
    torch.save({**state, **{name: item.state_dict() for name, item in parts.items()}}, unfinished)
    unfinished.replace(path)


if __name__ == "__main__":
    main()
