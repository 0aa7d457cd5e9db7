"""Train the masking model of real-time saliency: first the selector, then the decoder.

Source: Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017, section 4; the
constants are those of the authors' code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.errors import DataError, InputError, ModelError
from underfire.hooks import PyramidLevel, activations, feature_pyramid, frozen, layout_of
from underfire.interpreters.rts import files as rts_files
from underfire.interpreters.rts.loss import Terms, loss
from underfire.interpreters.rts.network import MaskingModel
from underfire.learning import Checkpoint, Drawn, fit, initialised, model_fingerprint

if TYPE_CHECKING:
    from underfire.data import Dataset

RATE, DECAY = 1e-3, 1e-4  # learning rate and weight decay of Adam
SELECTOR_DROP = 4000  # steps after which the selector's learning rate is divided by ten, again and again
ABSENT_FIRST, ABSENT = 0.5, 0.3  # probability of a class that is not in the image, in the first and the second phase
EVERY = 50  # steps between two checkpoints
_PASSES = 5  # passes of an image in the second phase: one for features, two forward and two backward under a mask


@dataclass(frozen=True)
class Plan:
    """The settings of a training; together with the model and the data, they determine the weights."""

    selector_steps: int
    selector_batch: int
    steps: int
    batch_size: int
    width: int
    terms: Terms
    seed: int


def layers_of(model: nn.Module, x: Tensor) -> list[PyramidLevel]:
    """Return the feature maps that the decoder reads, the coarsest first, for images of the size of `x`.

    The finest has at most a quarter of the image's side, as published. At least two are returned if the network has
    two, so that the decoder has one level.
    """
    found = feature_pyramid(model, x)
    coarse = [s for s in found if 4 * s.size[0] <= x.shape[2] and 4 * s.size[1] <= x.shape[3]]
    return (coarse if len(coarse) > 1 else found[-2:])[::-1]


def train(
    model: nn.Module,
    data: Dataset,
    plan: Plan,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> rts_files.Trained:
    """Train a masking model for `model` and return it in evaluation mode.

    Args:
        model: the classifier; it is not changed.
        data: images and labels.
        plan: the settings.
        progress: called with the number of passes that are done, and of all passes.
        checkpoint: a file that is written every 50 steps; if it exists, training continues from it and reaches the same
            weights.

    Raises:
        DataError: labels do not fit the model. InputError: the checkpoint is of another training. ModelError: the loss
            or the features are NaN.
    """
    # create the network and its optimizer
    like = next(model.parameters())
    x = data[:1].x.to(like.device)
    dtype = x.dtype
    chosen = layers_of(model, x)
    with torch.no_grad(), frozen(model):
        classes = model(x).shape[1]
    channels = [level.channels for level in chosen]
    network = initialised(lambda: MaskingModel(channels, classes, plan.width), plan.seed)
    network.to(like.device, dtype)
    names = [s.layer for s in chosen]
    trained = rts_files.Trained(network, tuple(names), model_fingerprint(model), plan.terms)
    decoder = [p for name, p in network.named_parameters() if not name.startswith("selector.")]
    adam = torch.optim.Adam(decoder, RATE, weight_decay=DECAY)
    total = len(data) + _PASSES * plan.steps * plan.batch_size

    def report(passes: int) -> None:
        if progress is not None:
            progress(passes, total)

    with frozen(model):
        # first phase: the selector, unless a checkpoint has it
        if checkpoint is None or not checkpoint.is_file():
            _train_selector(model, data, network, names[0], plan, report)
        # second phase: the decoder
        network.requires_grad_(True).train()
        network.selector.requires_grad_(False)
        fit(
            network,
            adam,
            Drawn(data, plan.batch_size, seed=plan.seed, device=like.device),
            partial(objective, model, trained, plan.terms),
            steps=plan.steps,
            generator=Generator(),
            checkpoint=checkpoint_of(checkpoint, plan, data, trained),
            progress=lambda step, _: report(len(data) + _PASSES * step * plan.batch_size),
        )
    network.requires_grad_(False).eval()
    return trained


def objective(
    model: nn.Module, trained: rts_files.Trained, terms: Terms, batch: tuple[Tensor, Tensor], generator: Generator
) -> Tensor:
    """Return the objective of the masks of a batch of images with labels, `[B]`.

    Raises:
        DataError: labels do not fit the model.
    """
    x, labels = batch
    network = trained.network
    with torch.no_grad():
        features = features_of(model, x, trained.layers, network.head.weight.dtype)
    y, present = _draw_classes(labels, network.classes, ABSENT, generator)
    return loss(model, x, y, network(features, y), present, terms, generator)


def checkpoint_of(path: Path | None, plan: Any, data: Dataset, trained: rts_files.Trained) -> Checkpoint | None:
    """Return the checkpoint of a training; a number of steps is no fact of it, so that more may be added later."""
    settings = {key: value for key, value in asdict(plan).items() if key != "steps"}
    facts = {"plan": json.dumps(settings), "data": data.fingerprint(), "fingerprint": trained.fingerprint}
    return None if path is None else Checkpoint(path, facts, EVERY)


def features_of(model: nn.Module, x: Tensor, names: Sequence[str], dtype: torch.dtype) -> list[Tensor]:
    """Return the outputs of the layers `names` for images `x`, in `dtype`."""
    outputs = activations(model, x, list(names))[1]
    return [layout_of(model, x, name).maps(outputs[name]).to(dtype) for name in names]


def _draw_classes(y: Tensor, classes: int, absent: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw a class to explain for each image: with probability `absent` another class than its own.

    Returns:
        The classes, int64 `[B]`, and whether each is the image's own, bool `[B]`.
    """
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        wrong = int(y.min()) if int(y.min()) < 0 else int(y.max())
        raise DataError(f"label {wrong} is outside the model's {classes} classes")
    present = (torch.rand(len(y), generator=generator, dtype=torch.float32) >= absent).to(y.device)
    other = (y + torch.randint(1, max(classes, 2), (len(y),), generator=generator).to(y.device)) % classes
    return torch.where(present, y, other), present


def _train_selector(
    model: nn.Module,
    data: Dataset,
    network: MaskingModel,
    layer: str,
    plan: Plan,
    report: Callable[[int], None],
) -> None:
    """Train the selector by cross-entropy to tell the classes that are in an image from those that are not.

    Its logit is linear in the features, so that their means over space suffice, which are computed once.
    """
    weight = network.selector.embedding.weight
    device, dtype = weight.device, weight.dtype

    def pooled() -> Iterator[tuple[Tensor, Tensor]]:
        seen = 0
        for batch in data.batches(plan.batch_size):
            report(seen)
            with torch.no_grad():
                (features,) = features_of(model, batch.x.to(device), [layer], dtype)
            yield features.mean((2, 3)), batch.y.to(device)
            seen += len(batch)

    means, labels = (torch.cat(parts) for parts in zip(*pooled(), strict=True))
    if not bool(torch.isfinite(means).all()):
        bad = int((~torch.isfinite(means).all(1)).sum())
        raise ModelError(f"the model's features are NaN or infinite for {bad} of {len(means)} images")

    def cross_entropy(batch: tuple[Tensor, Tensor], generator: Generator) -> Tensor:
        features, own = batch
        y, present = _draw_classes(own, len(weight), ABSENT_FIRST, generator)
        return F.binary_cross_entropy_with_logits(network.selector.exists(features, y), present.to(dtype))

    fit(
        network,
        torch.optim.Adam(network.selector.parameters(), RATE, weight_decay=DECAY),
        Drawn((means, labels), plan.selector_batch, seed=plan.seed, offset=2**40),
        cross_entropy,
        steps=plan.selector_steps,
        schedule=lambda adam, _: torch.optim.lr_scheduler.StepLR(adam, SELECTOR_DROP),
        generator=Generator(),
    )


def check(plan: Plan) -> None:
    """Raise InputError if a number of the plan is out of range."""
    for name in ("selector_steps", "selector_batch", "steps", "batch_size", "width"):
        low = 0 if name.endswith("steps") else 1
        if getattr(plan, name) < low:
            raise InputError(f"{name} must be at least {low}, got {getattr(plan, name)}")
    if plan.steps and plan.batch_size < 2:
        raise InputError("batch_size must be at least 2: the decoder normalises over the batch")
    for name, value in asdict(plan.terms).items():
        if not value >= 0:
            raise InputError(f"{name} must be at least 0, got {value:g}")
