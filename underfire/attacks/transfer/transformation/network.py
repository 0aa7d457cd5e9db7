"""The adversarial transformation network: two convolutions, one network for all images or one for each image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.errors import InputError, NotFitted
from underfire.files import as_path
from underfire.learning import read_tensors, write_tensors

COMMAND = "underfire train atta --model ... --data ... --out FILE"
Weights = tuple[Tensor, ...]
"""The weight and bias of both convolutions; their first dimension counts the networks, one for all images or each."""


def first_weights(
    channels: int, kernels: tuple[int, int], noise: float, like: Tensor, generator: Generator | None = None
) -> Weights:
    """Return the weights of one network that changes images little: the identity, plus normal noise.

    Args:
        channels: number of channels of the images.
        kernels: sides of the kernels of the two convolutions, odd.
        noise: standard deviation of the noise.
        like: a tensor of the wanted dtype and device.
        generator: source of the noise.

    Raises:
        InputError: a kernel is not odd.
    """
    if any(side < 1 or side % 2 == 0 for side in kernels):
        raise InputError(f"kernels must be two odd sides, such as (3, 15), got {kernels}")
    made: list[Tensor] = []
    for side in kernels:
        weight = torch.zeros(channels, channels, side, side, dtype=like.dtype, device=like.device)
        nn.init.dirac_(weight)
        draw = torch.randn(weight.shape, generator=generator, dtype=like.dtype, device=like.device)
        made += [(weight + noise * draw)[None], torch.zeros(1, channels, dtype=like.dtype, device=like.device)]
    return tuple(made)


def transformed(x: Tensor, weights: Weights, slope: float) -> Tensor:
    """Return `Conv(LeakyReLU(Conv(x)))`, shaped like `x` `[B, C, H, W]`.

    Args:
        weights: of one network, or of one for each image.
        slope: slope of the leaky ReLU below zero.
    """
    first, first_bias, second, second_bias = weights
    return _convolved(F.leaky_relu(_convolved(x, first, first_bias), slope), second, second_bias)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each image with its own kernels, or all with the only ones; the size stays."""
    padding = weight.shape[-1] // 2
    if len(weight) == 1:
        return F.conv2d(x, weight[0], bias[0], padding=padding)
    grouped = F.conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), bias.flatten(), padding=padding, groups=len(x))
    return grouped.view(x.shape)


class AdversarialTransformation(nn.Module):
    """A network that transforms images so that adversarial ones lose their effect, and clean ones keep their class.

    Args:
        channels: number of channels of the images.
        kernels: sides of the kernels of the two convolutions, odd. The text of the paper that we have gives none; two
            other codes have (3, 15) and (16, 3).
        slope: slope of the leaky ReLU below zero.
        noise: standard deviation of the noise that is added to the identity for the first weights (ours; the paper
            says "randomly"; ten steps of training are too few for weights that begin far from the identity).
        generator: source of the noise.
        like: a tensor of the wanted dtype and device; None is float32 on the CPU.

    Attributes:
        trained: whether the weights are trained.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernels: tuple[int, int] = (3, 15),
        slope: float = 0.01,
        noise: float = 0.01,
        generator: Generator | None = None,
        like: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.kernels, self.slope, self.trained = channels, tuple(kernels), slope, False
        like = torch.zeros((), dtype=torch.float32) if like is None else like
        self.weights = nn.ParameterList(first_weights(channels, kernels, noise, like, generator))

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed images, shaped like `x` `[B, C, H, W]`.

        Raises:
            InputError: the images have another number of channels.
        """
        if x.shape[1] != self.channels:
            raise InputError(f"the transformation is for {self.channels} channels, and the images have {x.shape[1]}")
        return transformed(x, tuple(weight.to(x) for weight in self.weights), self.slope)

    def save(self, path: str | Path) -> None:
        """Write the weights to a safetensors file.

        Raises:
            NotFitted: the network is not trained.
        """
        self.check_trained()
        shape = {"channels": self.channels, "kernels": self.kernels, "slope": self.slope}
        write_tensors(as_path(path), self.state_dict(), {"attack": "atta", "shape": json.dumps(shape)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the network in a file that `save` wrote.

        Raises:
            InputError: there is no such file, or it is damaged or of another kind.
        """
        tensors, facts = read_tensors(as_path(path))
        if facts.get("attack") != "atta":
            raise InputError(f"{str(path)!r} holds no transformation of atta; `{COMMAND}` makes one")
        try:
            shape = json.loads(facts["shape"])
            network = cls(shape["channels"], kernels=tuple(shape["kernels"]), slope=shape["slope"], noise=0)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{str(path)!r} is damaged: {' '.join(str(error).split())[:200]}") from None
        network.trained = True
        return network.requires_grad_(False)

    def check_trained(self) -> None:
        """Raise NotFitted unless the network is trained; the message names the command that trains it."""
        if not self.trained:
            raise NotFitted(f"the transformation of atta is not trained; `{COMMAND}` trains one")
