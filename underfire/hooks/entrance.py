"""Find the tensors with which a network begins: the images after a normalisation, wherever that is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from underfire.hooks.networks import varies

# Functions of images and constants that treat every entry alone, and affinely.
_ENTRYWISE = {"add", "sub", "rsub", "mul", "multiply", "div", "true_divide", "neg", "clone", "to", "contiguous"}
_ENTRYWISE |= {"__rsub__", "__radd__", "__rmul__", "float", "double", "half", "bfloat16", "type"}
# Functions that arrange entries in another way.
_ARRANGING = {"flatten", "reshape", "view", "unflatten", "permute", "transpose", "unsqueeze", "contiguous", "pad"}
_ARRANGING |= {"unfold"}
# Functions that only look at a tensor.
_LOOKING = {"__get__", "__len__", "dim", "size", "numel", "stride", "is_contiguous", "is_floating_point"}
_LOOKING |= {"register_hook", "data_ptr"}


class Entered(NamedTuple):
    """Images that enter a network, in any arrangement.

    Attributes:
        x: the images.
        beside: tensors that were treated as `x` was: all pixels at their least value, all at their largest, and ones,
            which are arranged alone. Empty if no bounds were given.
    """

    x: Tensor
    beside: tuple[Tensor, ...]


class Entrance:
    """Follow images through one forward pass, and separate the place at which the network itself begins.

    A network begins with the images after operations that treat every entry alone and affinely, such as the
    subtraction of a mean. Where another operation reads such a tensor, an alias takes its place, so that gradients with
    respect to the aliases are those of separate inputs.

    Args:
        point: images that require a gradient.
        bounds: the least and the largest value of a pixel, which broadcast to `point`; None if nothing must stand
            beside the images.

    Attributes:
        found: the aliases, and the tensors beside them; all require a gradient.
    """

    def __init__(self, point: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        ones = torch.ones_like(point, requires_grad=False)
        beside = () if bounds is None else (*(t.expand(point.shape).clone() for t in bounds), ones)
        self.found: list[Entered] = []
        self._images = {id(point): Entered(point, beside)}
        self._arranged: dict[int, Entered] = {}

    def of(self, t: Any) -> Entered | None:
        """Return the images that entered the network as the tensor `t`, or None if `t` is another tensor."""
        return _known(self._arranged, t)

    def enter(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments of a call, with aliases in place of images that enter the network in it."""
        if name in _LOOKING or (name in _ENTRYWISE and self._alone(self._images, args, kwargs) is not None):
            return args, kwargs

        def alias(value: Any) -> Any:
            image = _known(self._images, value)
            if image is None:
                return value
            low_high, ones = image.beside[:2], image.beside[2:]
            if low_high:  # a negative factor swaps them
                low_high = torch.minimum(*low_high), torch.maximum(*low_high)
            beside = tuple(t.clone().requires_grad_() for t in (*low_high, *ones))
            entered = Entered(image.x.view_as(image.x), beside)
            self.found.append(entered)
            self._arranged[id(entered.x)] = entered
            return entered.x

        if not any(_known(self._images, t) for t in tree_leaves((args, kwargs))):
            return args, kwargs
        return tree_map(alias, args), tree_map(alias, kwargs)

    def note(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """Remember the result of a call, if it is the images still."""
        for known, names in ((self._images, _ENTRYWISE), (self._arranged, _ARRANGING)):
            source = self._alone(known, args, kwargs) if name in names else None
            if source is None or not isinstance(result, Tensor):
                continue
            if known is self._images and result.shape != source.x.shape:
                continue

            def again(t: Tensor, source: Entered = source) -> Tensor:
                """Return the result of the same call for a tensor that accompanies the images."""
                put = tree_map(lambda value: t if value is source.x else value, (args, kwargs))
                made: Tensor = func(*put[0], **put[1])
                return made

            with torch.set_grad_enabled(known is self._arranged):
                moved = source.beside if known is self._arranged else source.beside[:2]
                beside = (*map(again, moved), *source.beside[len(moved) :])
            known[id(result)] = Entered(result, beside)

    def rename(self, before: Tensor, after: Tensor) -> None:
        """Remember that `after` has the values of `before`, which a call in place copies."""
        for known in (self._images, self._arranged):
            found = _known(known, before)
            if found is not None:
                known[id(after)] = found._replace(x=after)
            else:
                known.pop(id(after), None)

    def _alone(self, known: dict[int, Entered], args: Any, kwargs: Any) -> Entered | None:
        """Return the images that a call reads, if it reads no other tensor with a gradient."""
        wanted = [t for t in tree_leaves((args, kwargs)) if varies(t)]
        return _known(known, wanted[0]) if len(wanted) == 1 else None


def _known(known: dict[int, Entered], t: Any) -> Entered | None:
    found = known.get(id(t))
    return found if found is not None and found.x is t else None
