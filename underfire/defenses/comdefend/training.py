"""Train the networks of ComDefend on clean images: compress, disturb the code, reconstruct.

Source: Jia et al., ComDefend: An Efficient Image Compression Model to Defend Adversarial Examples, CVPR 2019, section
3.3, and the authors' code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from underfire.defenses.comdefend.network import BITS, NOISE, WIDTH, CompressionNetwork
from underfire.errors import InputError
from underfire.files import as_path
from underfire.learning import Checkpoint, Shuffled, drawn_seed, fit, initialised
from underfire.validate import at_least

if TYPE_CHECKING:
    from underfire.data import Dataset


def train_comdefend(
    data: Dataset,
    *,
    epochs: float = 10.0,
    batch_size: int = 20,
    rate: float = 1e-3,
    noise: float = NOISE,
    penalty: float = 1e-4,
    width: int = WIDTH,
    bits: int = BITS,
    device: str = "cpu",
    generator: Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> CompressionNetwork:
    """Return networks that were trained to compress and reconstruct clean images, by Adam; they need no classifier.

    The loss is `|Rec(s) - x|² + penalty |s|²`, each a mean, where `s = sigmoid(Com(x) - n)` and `n` is normal noise.
    The noise is so strong that only codes far from zero survive it, which are bits.

    Args:
        data: the images; their labels are not used.
        epochs: passes over the data.
        batch_size: images in a step.
        rate: learning rate.
        noise: standard deviation of the noise on the code, 20 in the paper.
        penalty: weight of the mean square of the code, the paper's λ.
        width: channels of the first layer; 16 in the paper.
        bits: number of bits of each pixel of the code; 12 in the paper.
        device: the device to train on.
        generator: the source of all random numbers.
        progress: called with the number of steps that are done, and of all steps.
        checkpoint: a file for the state of the training; if it exists, training continues from it.

    Raises:
        InputError: a number is out of range, or the checkpoint is of another training. ModelError: the loss is NaN.
    """
    at_least(0, noise=noise, penalty=penalty)
    if not (epochs > 0 and rate > 0):
        raise InputError(f"epochs and rate must be above 0, got {epochs:g} and {rate:g}")
    seed, first = drawn_seed(generator), data[:1].x
    network = initialised(lambda: CompressionNetwork(first.shape[1], width, bits), seed).to(device, first.dtype)

    def loss(batch: tuple[Tensor, Tensor], generator: Generator) -> Tensor:
        x, _ = batch
        s = network.code(x, noise, generator).sigmoid()
        error = (network.image(s) - x).square().flatten(1).mean(1)
        return error + penalty * s.square().flatten(1).mean(1)

    batches = Shuffled(data, batch_size, device=device)
    facts = {"options": repr((batch_size, rate, noise, penalty, width, bits, seed)), "data": data.fingerprint()}
    fit(
        network,
        torch.optim.Adam(network.parameters(), rate),
        batches,
        loss,
        steps=max(1, round(epochs * batches.per_epoch)),
        generator=Generator().manual_seed(seed),
        checkpoint=None if checkpoint is None else Checkpoint(as_path(checkpoint), facts),
        progress=progress,
    )
    return network.requires_grad_(False).eval()
