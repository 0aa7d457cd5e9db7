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
        """Return the output of the rectifier; without `beta`, it is exactly the output of torch."""
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

    def step(self, z: Tensor, cap: float | None) -> Tensor:
        """Return what the rectifier multiplies a gradient by, shaped like z: a step up at zero, and down at the cap."""
        end = None if self.secant else cap
        if self.width is not None and self.tau is None and self.beta is None and torch.is_grad_enabled():
            step = cast(Tensor, _WideStep.apply(z, end, self.width))
        else:
            step = self._rise(z) if end is None else self._rise(z) - self._rise(z - end)
        return step * (cap / z.clamp_min(cap)) if cap is not None and self.secant else step

    def _rise(self, z: Tensor) -> Tensor:
        """Return the step up at zero."""
        if self.beta is not None:
            return torch.sigmoid(self.beta * z)
        return _step(z, self.tau) if self.tau is not None else (z > 0).to(z.dtype)


class _WideStep(torch.autograd.Function):
    """The step of z up at zero and down at a cap, with the derivative of a smooth step.

    The smooth step is `width` root mean squares of z wide.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, cap: float | None, width: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.cap, ctx.width = cap, width
        return (z > 0 if cap is None else (z > 0) & (z <= cap)).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        size = torch.linalg.vector_norm(wide.detach().flatten(1), dim=1).square() / max(wide[:1].numel(), 1)
        s = per_sample(ctx.width**2 * size + 1e-12, z)
        # u / sqrt(u² + s) / 2 has the derivative s / sqrt(u² + s)³ / 2
        slope = _cubed(wide, s)
        if ctx.cap is not None:
            slope = slope - _cubed(wide - ctx.cap, s)
        return grads[0] * (slope * (0.5 * s)).to(z.dtype), None, None


def _cubed(u: Tensor, s: Tensor) -> Tensor:
    """Return 1 / sqrt(u² + s)³, in few passes over the memory."""
    return torch.addcmul(s, u, u).rsqrt_().pow(3)
