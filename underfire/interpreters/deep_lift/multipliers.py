"""The multipliers of DeepLIFT for a network of any kind.

All differences are those of the image from the reference. The multiplier of an input for an output is the contribution
of the input's difference to the output's difference, divided by the input's difference. For a linear operation it is
the gradient, and for an activation the slope of its secant. The difference of a maximum goes to the largest input of
the image or, if that is larger, of the reference. In a product, the contribution of a factor is its difference times
the mean of the other factor. A softmax, a normalisation and attention consist of these operations. The multiplier of
any other operation is its gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from underfire.attribution.secants import secant
from underfire.errors import Unsupported
from underfire.hooks import ModifiedGradients, explicit_attention, normalised, varies
from underfire.hooks.attention import PRIMITIVES
from underfire.hooks.rectifiers import OTHERS, Recogniser, Rectifier
from underfire.interpreters.deep_lift.signs import SignedSums

_ENTRYWISE = OTHERS | {"exp", "log", "sqrt", "rsqrt", "reciprocal", "square", "abs", "erf", "clamp", "log1p", "expm1"}
_ENTRYWISE |= {"pow", "__pow__", "log_sigmoid", "logsigmoid", "softsign"}
_BILINEAR = {"mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "bmm", "einsum", "linear", "conv2d"}
_QUOTIENTS = {"div", "true_divide", "__truediv__", "__rdiv__", "__rtruediv__"}
_REVERSED = ("__rdiv__", "__rtruediv__")
_POOLS: dict[str, tuple[Callable[..., Any], int]] = {
    f"{kind}max_pool{n}d": (getattr(F, f"{kind}max_pool{n}d"), n) for kind in ("", "adaptive_") for n in (1, 2, 3)
}
_WEIGHTED = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


Entrywise = Callable[[Tensor], Tensor]
"""A function of single entries."""


class Multipliers(ModifiedGradients):
    """Let every operation inside the block pass back multipliers with respect to a reference.

    The reference must pass first, in a block with `reference=None`, which records what enters its operations.

    Args:
        reference: such a block, or None.
        signs: use the RevealCancel rule for activations after weighted layers.
        attached: whether the multipliers carry a graph.
    """

    def __init__(self, reference: Multipliers | None, *, signs: bool, attached: bool) -> None:
        super().__init__(attached=attached)
        self.recorded: list[tuple[Tensor, ...]] = []
        self._recogniser, self._sums = Recogniser(), SignedSums() if signs else None
        self._remaining = None if reference is None else iter(reference.recorded)

    def rename(self, before: Tensor, after: Tensor) -> None:
        """Note that `after` has the values of `before`."""
        if self._sums is not None:
            self._sums.rename(before, after)

    def call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call that passes back multipliers."""
        tensors = [t for t in tree_leaves((args, kwargs)) if varies(t)]
        result = self._treated(name, func, args, kwargs, tensors) if tensors else func(*args, **kwargs)
        self._recogniser.note(func, args, result)
        return result

    def _treated(self, name: str, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        found = self._recogniser.find(func, args, kwargs)
        if found is not None:
            return self._entrywise(_rectifies(found), found.z, _slope(found))
        z = tensors[0]
        if name in _ENTRYWISE and len(tensors) == 1:
            return self._entrywise(lambda t: func(*tree_map(lambda v: t if v is z else v, args), **kwargs), z)
        if name in _POOLS and not kwargs.get("return_indices"):
            return self._maximum(_POOLS[name], func, args, kwargs, z)
        if name in _BILINEAR and len(tensors) == 2:
            return self._product(func, args, kwargs, tensors)
        if name in _QUOTIENTS and (len(tensors) == 2 or (args[0] is z) == (name in _REVERSED)):
            return self._quotient(name, func, args, kwargs)
        if name in ("softmax", "_softmax"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            return self._softmax(func(*args, **kwargs), z, dim)
        if normalised(name, args, kwargs) is not None:
            return self._normalised(name, func, args, kwargs, z)
        if name in _WEIGHTED:
            self.seen += 1
            result = func(*args, **kwargs)
            if self._sums is not None and not varies(args[1]):
                (start,) = self._reference(args[0])
                if self._remaining is not None:
                    self._sums.note(func, args, kwargs, result, self.instead(start))
            return result
        return explicit_attention(name, func, args, kwargs, self._primitive)

    def _primitive(self, name: str, *args: Any) -> Tensor:
        """Compute a part of attention, a product, a softmax or a linear layer, with its own multipliers."""
        result: Tensor = self.call(name, PRIMITIVES[name], args, {})
        return result

    def _reference(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Record the inputs of an operation; or return those that it has for the reference, which broadcast."""
        if self._remaining is None:
            self.recorded.append(inputs if self.attached else tuple(t.detach() for t in inputs))
            return inputs
        starts = next(self._remaining, ())
        try:
            return tuple(_repeated(start, t) for start, t in zip(starts, inputs, strict=True))
        except (RuntimeError, ValueError):
            raise Unsupported(
                "deep_lift needs a network that runs the same operations for an image and its baseline"
            ) from None

    def _entrywise(self, f: Entrywise, z: Tensor, slope: Entrywise | None = None) -> Tensor:
        """Rescale: the slope of the secant from the reference."""
        value = f(z)
        (start,) = self._reference(z)
        if self._remaining is None:
            return value
        sums = None if self._sums is None else self._sums.of(z)
        if sums is not None:
            with self.factors():
                factors = sums.multipliers(f, start)
            return self.instead(value, *zip(sums.parts, factors, strict=True))
        with self.factors():
            factor = secant(f, z, start, value, slope)
        return self.instead(value, (z, factor))

    def _maximum(self, pool: tuple[Any, int], func: Any, args: Any, kwargs: Any, z: Tensor) -> Tensor:
        """Give the whole change to the largest input of the image, or of the reference if that is larger still."""
        value: Tensor = func(*args, **kwargs)
        (start,) = self._reference(z)
        if self._remaining is None:
            return value

        def picks(t: Tensor) -> Callable[[Tensor], Tensor]:
            with torch.no_grad():
                index = pool[0](t, *args[1:], **kwargs | {"return_indices": True})[1].expand_as(value)
            return lambda of: of.expand_as(z).flatten(-pool[1]).gather(-1, index.flatten(-pool[1])).view_as(index)

        return self._larger(value, z, start, picks(z), picks(start))

    def _larger(self, value: Tensor, z: Tensor, start: Tensor, here: Any, there: Any) -> Tensor:
        """Return a maximum; `here` and `there` pick the entries that are largest in the image and in the reference."""
        branches = []
        for pick in (here, there):
            mine = pick(z)
            with self.factors():
                other, before = pick(start), there(start)
                same = mine == other
                share = (value - before) / torch.where(same, torch.ones_like(mine), mine - other)
                wins = value >= before if pick is here else value < before
                factor = torch.where(same, torch.ones_like(share), share) * wins
            branches.append((mine, factor))
        return self.instead(value, *branches)

    def _product(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Tensor:
        """Give each factor its change times the mean of the other factor at the image and at the reference."""
        value: Tensor = func(*args, **kwargs)
        starts = self._reference(*tensors)
        if self._remaining is None:
            return value
        with self.factors():
            means = [(t + start) / 2 for t, start in zip(tensors, starts, strict=True)]
        branches = []
        for i in range(2):
            # a tensor may be both factors, so that places count, not tensors
            places, put = iter((0, 1)), [tensors[0], tensors[1]]
            put[1 - i] = self.instead(means[1 - i])

            def swap(value: Any, places: Any = places, put: list[Tensor] = put) -> Any:
                return put[next(places)] if varies(value) else value

            moved, named = tree_map(swap, args), tree_map(swap, kwargs)
            branches.append((func(*moved, **named), 1.0))
        return self.instead(value, *branches)

    def _quotient(self, name: str, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Treat `a / b` as the product of `a` and `1 / b`."""
        value: Tensor = func(*args, **kwargs)
        a, b = args[0], args[1] if len(args) > 1 else kwargs["other"]
        a, b = (b, a) if name in _REVERSED else (a, b)
        both = varies(a)
        starts = self._reference(a, b) if both else (a, *self._reference(b))
        if self._remaining is None:
            return value
        with self.factors():
            one, other = 1 / b, 1 / starts[1]
            of_b = -one * other * (a + starts[0]) / 2
            of_a = (one + other) / 2
        return self.instead(value, (b, of_b), *([(a, of_a)] if both else []))

    def _softmax(self, value: Tensor, z: Tensor, dim: int) -> Tensor:
        """Treat a softmax as the product of `e = exp(z - max z)` and one over its sum."""
        (start,) = self._reference(z)
        if self._remaining is None:
            return value
        start = start.expand_as(z)
        places = z.detach().argmax(dim, keepdim=True), start.detach().argmax(dim, keepdim=True)
        top, before_top = (t.gather(dim, place) for t, place in zip((z, start), places, strict=True))
        here, there = (lambda of, place=place: of.gather(dim, place) for place in places)
        u = z - self._larger(top, z, start, here, there)
        with self.factors():
            origin = start - before_top
            e, before = u.exp(), origin.exp()
            slope = secant(torch.exp, u, origin, e)
            one, other = 1 / e.sum(dim, keepdim=True), 1 / before.sum(dim, keepdim=True)
            of_sum = -one * other * (e + before) / 2
            of_entry = slope * (one + other) / 2
        total = (self.instead(slope) * u).sum(dim, keepdim=True).expand_as(u)
        return self.instead(value, (u, of_entry), (total, of_sum))

    def _normalised(self, name: str, func: Any, args: Any, kwargs: Any, z: Tensor) -> Tensor:
        """Treat a normalisation as the product of `u` and one over the root of its mean square."""
        value: Tensor = func(*args, **kwargs)
        (start,) = self._reference(z)
        if self._remaining is None:
            return value
        here = normalised(name, args, kwargs)
        with self.factors():
            there = normalised(name, *tree_map(lambda v: start if v is z else v, (args, kwargs)))
            assert here is not None and there is not None
            one, other = here.inverse(), there.inverse()
            both = here.u + there.u
            of_u = here.gain * (one + other) / 2
            of_square = here.gain * both / 2 * -((one * other) ** 2) / (one + other)
        square = here.mean(self.instead(both) * here.u).expand_as(z)
        return self.instead(value, (here.u, of_u), (square, of_square))


def _rectifies(found: Rectifier) -> Callable[[Tensor], Tensor]:
    """Return a rectifier as a function."""

    def f(z: Tensor) -> Tensor:
        value = torch.where(z > 0, z, found.slope * z)
        return found.scale * (value if found.cap is None else value.clamp_max(found.cap))

    return f


def _slope(found: Rectifier) -> Callable[[Tensor], Tensor]:
    """Return the derivative of a rectifier as a function."""

    def f(z: Tensor) -> Tensor:
        step = (z > 0).to(z.dtype)
        if found.cap is not None:
            step = step - (z > found.cap).to(z.dtype)
        return found.scale * (found.slope + (1 - found.slope) * step)

    return f


def _repeated(start: Tensor, like: Tensor) -> Tensor:
    """Repeat what a single reference has for every image of the batch, unless it broadcasts to all of them.

    Images come first in the first dimension.
    """
    if start.dim() == like.dim() and start.shape[0] not in (1, like.shape[0]):
        start = start.repeat(like.shape[0] // start.shape[0], *[1] * (start.dim() - 1))
    if torch.broadcast_shapes(start.shape, like.shape) != like.shape:
        raise ValueError("another shape")
    return start
