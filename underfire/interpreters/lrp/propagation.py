"""The backward pass of LRP through a network of any kind.

What is passed back is `c = R / a`, the relevance of an entry over its value. Sums, means, average pooling and batch
norms outside folded pairs then need no rule: their gradient shares the relevance by the contributions. Of a maximum,
the largest input gets all. An activation passes its relevance on, but for a constant that it adds. Of a product of two
features, each gets half; of a quotient, the numerator all; normalisation over an image is a product with a constant.
Within attention, these rules are those of AttnLRP (Achtibat et al., ICML 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from underfire.attribution.secants import secant
from underfire.hooks import Entrance, ModifiedGradients, explicit_attention, normalised, plain_relu, varies
from underfire.hooks.attention import PRIMITIVES
from underfire.hooks.rectifiers import OTHERS
from underfire.interpreters.lrp.rules import Layer, Rule, Settings

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "bmm", "einsum"}
_QUOTIENTS = {"div", "true_divide", "__truediv__"}
_ENTRYWISE = OTHERS | {"square", "abs", "exp", "erf"}
# Functions whose results are not negative, and those that keep this.
_POSITIVE = {"relu", "relu6", "sigmoid", "softplus", "softmax"}
_KEEP = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "flatten", "view", "reshape", "mean"}
_KEEP |= {"dropout", "permute", "transpose", "contiguous", "add", "cat"}


class Propagation(ModifiedGradients):
    """Let every weighted layer inside the block pass back relevance by a rule.

    Args:
        rules: for the layers that read the image, the other convolutions and the other linear layers.
        settings: the numbers in the rules.
        entrance: where the network begins.
        attached: whether the relevance carries a graph.
    """

    kept = frozenset({"relu", "relu6", "leaky_relu", "hardtanh", "clamp", "threshold"})  # `secant_relu` treats them

    def __init__(
        self, rules: tuple[Rule, Rule, Rule], settings: Settings, entrance: Entrance, *, attached: bool
    ) -> None:
        super().__init__(attached=attached)
        self.rules, self.settings, self.entrance = rules, settings, entrance
        self._positive: dict[int, Tensor] = {}  # tensors that are not negative

    def rename(self, before: Tensor, after: Tensor) -> None:
        """Note that `after` has the values of `before`."""
        self.entrance.rename(before, after)
        if self._is_positive(before):
            self._positive[id(after)] = after
        else:
            self._positive.pop(id(after), None)

    def call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call that passes back relevance."""
        args, kwargs = self.entrance.enter(name, args, kwargs)
        result = self._treated(name, func, args, kwargs)
        self.entrance.note(name, func, args, kwargs, result)
        tensors = args[0] if name == "cat" else [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        if name.rstrip("_") in _POSITIVE or (name in _KEEP and all(map(self._is_positive, tensors))):
            self._positive[id(result)] = result
        return result

    def _is_positive(self, t: Any) -> bool:
        return self._positive.get(id(t)) is t

    def _treated(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in _CONVOLUTIONS or name == "linear":
            return self._weighted(name, func, args, kwargs)
        tensors = [t for t in (*args, *kwargs.values()) if varies(t)]
        if not tensors:
            return func(*args, **kwargs)
        power = name in ("pow", "__pow__") and isinstance(args[1], int | float) and args[1] > 0
        if name in _ENTRYWISE or power:
            return self._activation(lambda z: func(z, *args[1:], **kwargs), tensors[0])
        if name in _PRODUCTS and len(tensors) == 2:
            result = func(*args, **kwargs)
            return self.instead(result, (result, 0.5))
        if name in _QUOTIENTS and len(tensors) == 2:
            result = func(*args, **kwargs)
            with self.factors():
                factor = 1 / tensors[1]
            return self.instead(result, (tensors[0], factor))
        found = normalised(name, args, kwargs)
        if found is not None:
            result = func(*args, **kwargs)
            with self.factors():
                factor = found.gain * found.inverse()
            return self.instead(result, (found.u, factor))
        return explicit_attention(name, func, args, kwargs, self._primitive)

    def _primitive(self, name: str, *args: Any) -> Tensor:
        """Compute a part of attention, a product, a softmax or a linear layer, with its own rule."""
        result: Tensor = self._treated(name, PRIMITIVES[name], args, {})
        return result

    def _activation(self, f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        value = f(z)
        with self.factors():
            factor = secant(f, z, torch.zeros_like(z[..., :1]), value)
        return self.instead(value, (z, factor))

    def _weighted(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        a, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        if not varies(a) or varies(weight):
            return func(*args, **kwargs)

        def apply(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            made: Tensor = func(a, weight, bias, *args[3:], **given)
            return made

        z = value = apply(a, weight, bias)
        if not self.settings.bias and bias is not None:
            z, bias = apply(a, weight, None), None
        entered = self.entrance.of(a)
        rule = self.rules[0 if entered is not None else 1 if name in _CONVOLUTIONS else 2]
        layer = Layer(a, weight, bias, z, apply, self._is_positive(a), () if entered is None else entered.beside)
        branches = []
        with plain_relu():  # the bounds of the rule are not rectifiers of the network
            shares = rule(layer, self.settings)
        for p, part in shares:
            with self.factors():
                factor = _share(p, part, value, self.settings.epsilon)
                # of p = z, the derivative is a spike of the height 1 / ε where z is almost zero
                factor = factor.detach() if self.settings.smooth and p is value else factor
            branches.append((p, factor))
        return self.instead(value, *branches)


def _share(p: Tensor, part: Tensor | float, value: Tensor, epsilon: float) -> Tensor:
    """Return `part * value / p`, with `epsilon` added to the denominator, away from zero.

    Where `p` is almost zero, so are the contributions that the factor multiplies, but in float16 it would be infinite,
    and the relevance NaN. It is computed in float32 there, and bounded such that products of two factors are finite.
    """
    if p.dtype != torch.float16:
        return part * value / (p + epsilon * (1 - 2 * (p < 0).to(p.dtype)))
    wide = p.float()
    factor = part * value.float() / (wide + epsilon * (1 - 2 * (wide < 0).float()))
    most = torch.finfo(p.dtype).max ** 0.5
    return factor.clamp(-most, most).to(p.dtype)
