"""Train the seven-layer network for MNIST of the experiments on detectors, once; later experiments use its file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire import data, models
from underfire.learning import Checkpoint, Shuffled, fit, initialised, one_cycle, read_tensors, write_tensors
from underfire.model import Classifier
from underfire.models.architectures.small import trades_small
from underfire.reproductions.registry import Setting

EPOCHS = {"quick": 0.05, "default": 6.0, "full": 20.0}
"""Passes over the 60,000 training images, by the size of a run."""
BATCH, RATE, DROPOUT = 128, 2e-3, 0.5


def network(setting: Setting) -> Classifier:
    """Return the network, and train it first if the work folder has no file of it.

    It has four convolutions of 3 x 3 (32, 32, 64 and 64 channels, with maximum pooling after each pair) and linear
    layers of 200, 200 and 10 units, with dropout between the first two. It is trained with Adam on the cross-entropy
    of images that are not augmented. A training that was interrupted continues at its last checkpoint. Without dropout,
    `models.load("FILE?arch=mnist_small_cnn")` reads the file too.
    """
    path, module = weights(setting), trades_small(DROPOUT)
    if not path.is_file():
        _train(setting, path)
    module.load_state_dict(read_tensors(path)[0])
    return Classifier(module, labels=[str(digit) for digit in range(10)]).to(setting.device).eval()


def weights(setting: Setting) -> Path:
    """Return the file of the trained weights."""
    return setting.work / f"detection-mnist-{setting.scale}.safetensors"


def _train(setting: Setting, path: Path) -> None:
    """Train the network and write its weights; what determines them is in the metadata."""
    images = data.load(f"mnist:{setting.root / 'mnist'}?split=train")
    module = initialised(lambda: trades_small(DROPOUT), setting.seed).to(setting.device).train()
    batches = Shuffled(images, BATCH, device=setting.device)
    steps = max(1, round(EPOCHS[setting.scale] * batches.per_epoch))
    facts = {"steps": str(steps), "seed": str(setting.seed), "batch": str(BATCH), "rate": str(RATE)}
    facts |= {"dropout": str(DROPOUT), "data": images.fingerprint()}

    def loss(batch: tuple[Tensor, Tensor], generator: Generator) -> Tensor:
        x, y = batch
        return F.cross_entropy(module(x), y)

    setting.work.mkdir(parents=True, exist_ok=True)
    fit(
        module,
        torch.optim.Adam(module.parameters(), RATE),
        batches,
        loss,
        steps=steps,
        schedule=one_cycle(),
        generator=torch.Generator().manual_seed(setting.seed),
        checkpoint=Checkpoint(path.with_suffix(".training"), facts, every=200),
        progress=lambda done, total: setting.progress(done, total, "training the network"),
    )
    write_tensors(path, module.state_dict(), facts | {"fingerprint": models.fingerprint(module)})
