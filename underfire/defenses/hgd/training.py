"""Train the denoiser of HGD: the classifier must see in the denoised image what it sees in the clean one.

Source: Liao et al., Defense against Adversarial Attacks Using High-Level Representation Guided Denoiser, CVPR 2018,
sections 3.3 and 4.1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire import models
from underfire.defenses.hgd.crafting import kinds, perturbed
from underfire.defenses.hgd.denoiser import WIDTH, Denoiser
from underfire.defenses.versions import Version, opened
from underfire.errors import InputError
from underfire.files import as_path
from underfire.hooks import activations, feature_pyramid, frozen
from underfire.learning import Checkpoint, Shuffled, crop_and_flip, drawn_seed, fit, initialised, steps_down
from underfire.model import Classifier, as_classifier
from underfire.validate import check_choice

if TYPE_CHECKING:
    from underfire.data import Dataset

Guide = Literal["logits", "features", "class", "pixels"]
Represent = Callable[[Tensor], Tensor]


def train_hgd(
    model: nn.Module,
    data: Dataset,
    *,
    guide: Guide = "logits",
    layer: str | None = None,
    sources: Sequence[Version] = (),
    eps: float = 16 / 255,
    epochs: float = 30.0,
    batch_size: int = 60,
    rate: float = 1e-3,
    width: int = WIDTH,
    generator: Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Denoiser:
    """Return a denoiser that was trained to protect `model`, by Adam.

    The perturbed images are made anew in every step (the authors make a fixed set of them once); half of them are
    mirrored. The learning rate is divided by ten after 60 % and after 90 % of the training.

    Args:
        model: the classifier that guides the denoiser; it is not changed.
        data: images with labels.
        guide: where the loss compares the denoised image with the clean one, by the L1 distance: the logits (LGD in the
            paper), the topmost feature maps (FGD) or the pixels (PGD). `"class"` is the cross-entropy of the denoised
            image instead (CGD).
        layer: the layer whose output guides with `"features"`; None is the last one with feature maps.
        sources: further classifiers to make perturbed images with, or their URIs; the paper has three in all.
        eps: largest perturbation in L-infinity; each image has a random one of at least one grey level.
        epochs: passes over the data; the paper has 20 to 30.
        batch_size: images in a step.
        rate: first learning rate.
        width: channels of the denoiser's finest level; 64 in the paper.
        generator: the source of all random numbers.
        progress: called with the number of steps that are done, and of all steps.
        checkpoint: a file for the state of the training; if it exists, training continues from it.

    Raises:
        InputError: a number is out of range, or the checkpoint is of another training. ModelError: the loss is NaN.
            Unsupported: the guide is unknown, or the model has no feature maps.
    """
    model = as_classifier(model)
    model.domain.require_images("hgd")
    check_choice(get_args(Guide), guide=guide)
    levels = round(255 * eps)
    if not (epochs > 0 and rate > 0 and 1 <= levels <= 255):
        raise InputError(
            f"epochs and rate must be above 0 and eps from 1/255 to 1, got {epochs:g}, {rate:g} and {eps:g}"
        )
    seed, device = drawn_seed(generator), model.mean.device
    networks = [model, *opened(model, sources, "sources")]
    x = data[:1].x.to(device)
    denoiser = initialised(lambda: Denoiser(x.shape[1], width), seed).to(device, x.dtype).train()
    represent, among = _representation(model, x, guide, layer), kinds(networks)

    def loss(batch: tuple[Tensor, Tensor], generator: Generator) -> Tensor:
        clean, y = batch
        z = denoiser(perturbed(clean, among, levels, generator))
        if guide == "class":
            return F.cross_entropy(model(z), y, reduction="none")
        with torch.no_grad():
            wanted = represent(clean)
        return (represent(z) - wanted).abs().flatten(1).mean(1)

    batches = Shuffled(data, batch_size, device=device, augment=crop_and_flip(0))
    facts = {
        "options": repr((guide, layer, levels, batch_size, rate, width, seed)),
        "data": data.fingerprint(),
        "model": " ".join(map(models.fingerprint, networks)),
    }
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(frozen(network))
        fit(
            denoiser,
            torch.optim.Adam(denoiser.parameters(), rate),
            batches,
            loss,
            steps=max(1, round(epochs * batches.per_epoch)),
            schedule=steps_down((0.6, 0.9)),
            generator=Generator().manual_seed(seed),
            checkpoint=None if checkpoint is None else Checkpoint(as_path(checkpoint), facts),
            progress=progress,
        )
    return denoiser.requires_grad_(False).eval()


def _representation(model: Classifier, x: Tensor, guide: Guide, layer: str | None) -> Represent:
    """Return the function of images in whose values the denoised image must resemble the clean one."""
    if guide == "pixels":
        return lambda x: x
    if guide != "features":
        return model
    name = feature_pyramid(model, x)[-1].layer if layer is None else layer
    return lambda x: activations(model, x, [name])[1][name]
