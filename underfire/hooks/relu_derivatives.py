"""Define how a rectifier passes back a gradient, and the smooth steps that replace the unit step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.validate import per_sample


def _step(z: Tensor, tau: float) -> Tensor:
    """Return h(z), a smooth approximation of the unit step: z / sqrt(z² + tau), plus one where z < 0."""
    wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z  # squares overflow in half precision
    step = wide * torch.rsqrt(wide * wide + tau)
    return torch.where(z < 0, step + 1, step).to(z.dtype)


@dataclass(frozen=True)
class ReluRule:
    """The backward pass of a rectifier, which gets the gradient g of its output and had the input z.

    Attributes:
        positive: pass back only positive g.
        masked: pass back only where z was positive, that is, multiply g by the unit step of z.
        tau: replace the unit step and its derivative by h(z) with this tau.
        width: keep the value of the unit step, but give it the derivative of a smooth step whose width is this share
            of the root mean square of z.
        beta: replace the rectifier by the softplus log(1 + exp(beta z)) / beta, and the unit step by its derivative.
        secant: beyond a cap, multiply g by the cap over z, the slope of the line from zero, and not by zero.
    """

    positive: bool = False
    masked: bool = True
    tau: float | None = None
    width: float | None = None
    beta: float | None = None
    secant: bool = False

    def value(self, z: Tensor, slope: float | Tensor, cap: float | None) -> Tensor:
        """Return what the rectifier answers; without `beta`, exactly what torch computes."""
        if self.beta is not None:
            risen = (
                F.softplus(z, self.beta) if cap is None else F.softplus(z, self.beta) - F.softplus(z - cap, self.beta)
            )
            return slope * z + (1 - slope) * risen if isinstance(slope, Tensor) or slope else risen
        if isinstance(slope, Tensor):
            return torch.where(z > 0, z, slope * z)
        if slope:
            return F.leaky_relu(z, slope)
        return z.clamp_min(0) if cap is None else z.clamp(0, cap)

    def step(self, z: Tensor, at: float = 0.0) -> Tensor:
        """Return the step from 0 to 1 where z passes `at`, shaped like z."""
        if self.beta is not None:
            return torch.sigmoid(self.beta * (z - at))
        if self.tau is not None:
            return _step(z - at, self.tau)
        if self.width is None or not torch.is_grad_enabled():
            return (z > at).to(z.dtype)
        return cast(Tensor, _WideStep.apply(z, at, self.width))


class _WideStep(torch.autograd.Function):
    """The unit step of z, with the derivative of a smooth step that is `width` root mean squares of z wide."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, at: float, width: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.at, ctx.width = at, width
        return (z > at).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        size = per_sample(wide.detach().square().flatten(1).mean(1), z)
        # u / sqrt(u² + s) / 2 has the derivative s / sqrt(u² + s)³ / 2
        s = ctx.width**2 * size + 1e-12
        return grads[0] * (0.5 * s * ((wide - ctx.at).square() + s).rsqrt().pow(3)).to(z.dtype), None, None
