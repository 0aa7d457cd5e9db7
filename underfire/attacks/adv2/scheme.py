"""The constants of the bilevel scheme of ADV², and the interface that an interpreter needs for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

from underfire.ascent.parts import part, spelling
from underfire.catalog import Converter, card, converters
from underfire.validate import at_least, at_least_one, check_number


@card("part", role="scheme", name="bilevel")
@dataclass(frozen=True)
class Bilevel:
    """Move image and map in turn, as the bilevel scheme of ADV² does; these are its constants.

    The defaults are those of the authors' code, where nothing else is said.

    Attributes:
        follow: steps on the map, for which the image is constant, before each step on the image.
        ahead: further steps on the map, which are differentiated. The map loss is the mean over the maps after each.
        reset: after so many steps on the image, the whole optimisation is run. Its map is the one that counts, and the
            steps on the map go on from it.
        lengths: how many lengths of the step against the map loss are tried, equally spaced up to the longest. The
            authors bisect ten times, which takes ten passes, one after the other.
        longest: the longest such step, as a multiple of the step on the prediction.
        last: the same in the last tenth of the steps.
        fade: whether the step on the prediction shrinks with the probability that the goal lacks, once it has its
            confidence, as the gradient of the cross-entropy does. In the authors' code every step has the full length.
        enough: map loss after the whole optimisation at which an image is finished. The authors do not stop early.
    """

    follow: int = 4
    ahead: int = 4
    reset: int = 50
    lengths: int = 10
    longest: float = 1.6
    last: float = 0.8
    fade: bool = True
    enough: float = 1e-4

    def resets(self, steps: int) -> int:
        """Return how many times an attack of so many steps on the image runs the whole optimisation, at most."""
        return math.ceil(steps / self.reset)

    def __post_init__(self) -> None:
        check_number(**{name: value for name, value in asdict(self).items() if name != "fade"})
        at_least(0, follow=self.follow, longest=self.longest, last=self.last, enough=self.enough)
        at_least_one(ahead=self.ahead, reset=self.reset, lengths=self.lengths)


converters[Bilevel] = Converter(
    "the name of a scheme",
    lambda value: part("scheme", value=value),
    lambda value: spelling("scheme", value=value),
)


class Unrolled(Protocol):
    """The optimisation that makes the maps of a batch of images; a card of an interpreter names it as `unrolled`.

    It is made by `(model, x, y, *, generator, **options)` with the options of the interpreter, and begins at the first
    maps of `x`. The generator is on the CPU.
    """

    @staticmethod
    def steps(**options: Any) -> int:
        """Return the number of steps of the whole optimisation, from the options of the interpreter."""

    def unroll(self, x: Tensor, steps: int, ahead: int) -> list[Tensor]:
        """Take `steps + ahead` steps, and return the maps after each of the last `ahead`, with a graph to `x`."""

    def restart(self, x: Tensor) -> Tensor:
        """Run the whole optimisation for `x`, go on from the maps that it finds, and return them."""

    def take(self, rows: Tensor) -> None:
        """Keep the images at `rows`, int64 `[M]`."""
