"""Read the spatial means of layers in every pass inside a block, without keeping whole feature maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from underfire.errors import ModelError
from underfire.hooks.finding import as_maps, traced
from underfire.hooks.reading import reading


@contextmanager
def layer_means(model: nn.Module, x: Tensor, names: Sequence[str]) -> Iterator[LayerMeans]:
    """Yield an object that holds, after each pass inside the block, the means of the outputs of layers over space.

    The layouts of the layers are found before the block, by a pass of one noise image.

    Args:
        x: images; only their size, type and device matter.
        names: the layers, see `hooks.choose_layers`.

    Raises:
        ModelError: a layer does not exist. Unsupported: the output of a layer is not a tensor, or has no known layout.
    """
    traced(model, x)
    means = LayerMeans(model, x, names)
    with reading(model, names, False, means, copies=False):
        yield means


class LayerMeans(dict[str, Tensor]):
    """The means of the outputs of layers over space, `[B, C]` each, of the latest pass."""

    def __init__(self, model: nn.Module, x: Tensor, names: Sequence[str]) -> None:
        super().__init__()
        self._model, self._x, self._names = model, x[:1].detach(), names

    def __setitem__(self, name: str, output: Tensor) -> None:
        maps = as_maps(self._model, self._x, name, output)
        super().__setitem__(name, maps.mean((2, 3)) if maps.dim() == 4 else maps.clone())

    def taken(self) -> list[Tensor]:
        """Return the means of the latest pass in the order of the names, and forget them.

        Raises:
            ModelError: a layer took no part in the pass.
        """
        missing = [name for name in self._names if name not in self]
        if missing:
            raise ModelError(f"layer {missing[0]!r} took no part in the forward pass")
        found = [self[name] for name in self._names]
        self.clear()
        return found
