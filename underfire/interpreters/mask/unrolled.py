"""Run the optimiser of `mask` beside an attack, a few steps at a time, and differentiate its steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.step import take
from underfire.attribution.chunks import MEMORY, resolve_chunk
from underfire.hooks import frozen
from underfire.interpreters.mask.game import MaskGame, mask_game
from underfire.interpreters.mask.steps import ADAM, mask_step, optimise, run_seed
from underfire.interpreters.mask.variants import VARIANTS

_OF_GAME = ("variant", "game", "fill", "cells")
_COUNT = 100  # steps that Adam counts after a restart, so that its averages are hardly corrected for their short past


class UnrolledMask:
    """The masks of a batch of images that an attack changes, with the memory of Adam.

    Args:
        model: the classifier.
        x: images `[B, C, H, W]`.
        y: classes, int64 `[B]`.
        generator: source of jitter and noise, on the CPU, so that no step waits for the device.
        options: options of `mask`.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, **options: Any) -> None:
        self.model, self.y, self.generator, self.options = model, y, generator, options
        self.step_size = options.get("step_size", 0.1)
        self.game = self._play(x)
        self.m = self.game.start()
        self.memory: Any = ADAM.init(self.m)

    @staticmethod
    def steps(*, variant: str = "fong", steps: int | None = None, **_: Any) -> int:
        """Return the number of steps of the whole optimisation, from the options of `mask`."""
        return VARIANTS[variant].steps if steps is None else steps

    @staticmethod
    def chunk(model: nn.Module, x: Tensor, *, ahead: int, **options: Any) -> int:
        """Return how many images at once the options `chunk` and `memory` of `mask` allow.

        With `double_backward="finite_difference"`, the memory of `ahead` differentiated steps is that of one pass;
        otherwise the graphs of all of them are kept, each of which takes that of two passes.
        """
        exact = options.get("double_backward", "finite_difference") != "finite_difference"
        room = options.get("memory", MEMORY) / (ahead if exact else 1)
        return resolve_chunk(model, x, options.get("chunk"), room, gradients=True, twice=exact)

    def unroll(self, x: Tensor, steps: int, ahead: int) -> list[Tensor]:
        """Take `steps + ahead` steps on the masks, and return the maps after each of the last `ahead`.

        The maps carry a graph to `x`, if it requires a gradient, through the gradients of their own step and, by the
        averages of Adam, of the differentiated steps before it. The masks from which a step begins are constant.
        """
        moving = self.game.at(x)
        fixed, maps = moving.detach(), list[Tensor]()
        for number in range(steps + ahead):
            m, self.memory = mask_step(
                moving if number >= steps else fixed,
                self.m,
                self.memory,
                drawn=self.game.draw(self.generator),
                step_size=self.step_size,
                double_backward=self.options.get("double_backward", "finite_difference"),
            )
            self.m = m.detach()
            if number >= steps:
                maps.append(moving.shown(m))
        self.memory = tuple(part.detach() for part in self.memory)
        return maps

    def restart(self, x: Tensor) -> Tensor:
        """Run the whole optimisation for `x` from its beginning, go on from the maps that it finds, and return them.

        They are the maps of `mask`. The filling of each image is chosen anew. For the steps that follow, the first
        average of Adam is halved, the second quartered, and its count of steps becomes 100, as in the authors' code of
        ADV².
        """
        self.game = self._play(x)
        device, seed = run_seed(None, x.device)
        with frozen(self.model):
            self.m = optimise(self.game, self.options.get("steps"), self.step_size, Generator(device).manual_seed(seed))
        mean, square, count = self.memory
        self.memory = mean / 2, square / 4, torch.full_like(count, _COUNT)
        return self.game.shown(self.m)

    def take(self, rows: Tensor) -> None:
        """Keep the images at `rows`, int64 `[M]`."""
        self.game, self.y, self.m = self.game.take(rows), self.y[rows], self.m[rows]
        self.memory = take(self.memory, rows)

    def _play(self, x: Tensor) -> MaskGame:
        chosen = {name: self.options[name] for name in _OF_GAME if name in self.options}
        with torch.no_grad():
            return mask_game(self.model, x.detach(), self.y, **chosen)
