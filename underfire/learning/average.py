"""An exponential moving average of the weights of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from underfire.errors import InputError


@dataclass(eq=False)
class Average:
    """The moving average of the weights, which the network has while it is measured, and at the end of the training.

    After step t, counted from 1, `average <- d average + (1 - d) weights`; the first average is that of the first
    weights.

    Attributes:
        decay: the share d of the old average that a step keeps, at least 0 and below 1.
        buffers: whether the floating-point buffers, such as the running statistics of batch norms, are averaged too. If
            False, the averaged weights are used with the present buffers.
        warm_up: whether d is at most `(1 + t) / (10 + t)`, so that the first weights are forgotten quickly.

    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; the warm-up is that of
    TensorFlow's `ExponentialMovingAverage`.
    """

    decay: float = 0.999
    buffers: bool = True
    warm_up: bool = True
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _averages: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"the decay of an average must be at least 0 and below 1, got {self.decay}")

    def begin(self, network: nn.Module) -> None:
        """Start the average at the present weights of a network."""
        self._weights = {name: weight.detach() for name, weight in network.named_parameters()}
        if self.buffers:
            self._weights |= {name: b for name, b in network.named_buffers() if b.is_floating_point()}
        self._averages = {name: weight.clone() for name, weight in self._weights.items()}

    def update(self, step: int) -> None:
        """Move the average towards the weights after `step` steps of the training."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warm_up else self.decay
        with torch.no_grad():
            torch._foreach_lerp_([*self._averages.values()], [*self._weights.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights inside the block."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self) -> None:
        """Exchange the weights of the network and their average."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                held = weight.clone()
                weight.copy_(self._averages[name])
                self._averages[name].copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue with the averages that `state_dict` returned.

        Raises:
            KeyError: an average is missing. RuntimeError: an average has another shape than the weight.
        """
        for name, average in self._averages.items():
            average.copy_(state[name])
