"""One-class support vector machines, one for each class: fitted by scikit-learn, evaluated in torch for a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Gamma = float | Literal["scale", "auto"]


@dataclass(frozen=True)
class Machines:
    """The support vectors of one machine for each class; a machine with fewer than `S` has zero weights at the end.

    Attributes:
        vectors: support vectors `s_i`, `[K, S, D]`.
        weights: their dual coefficients `α_i`, `[K, S]`.
        offset: `ρ`, `[K]`.
        gamma: `γ` of the kernel, `[K]`.
    """

    vectors: Tensor
    weights: Tensor
    offset: Tensor
    gamma: Tensor

    @cached_property
    def squares(self) -> Tensor:
        """Return the squared norms of the support vectors, `[K, S]`."""
        return precise(self.vectors).square().sum(2)

    def decide(self, z: Tensor, classes: Tensor) -> Tensor:
        """Return the decision function `Σ α_i exp(-γ |z - s_i|²) - ρ`, `[B]`, of the machine of each input's class.

        The inputs of one class are evaluated together, so that the work does not grow with the number of classes. The
        sums are those of float64, where the device has it: α sums to ν times the number of fitted inputs.

        Args:
            z: inputs `[B, D]`.
            classes: int64 `[B]`.
        """
        # sort the inputs by class into slots [P, M, D], one for each class that occurs
        counts = torch.bincount(classes, minlength=len(self.vectors))
        present = counts.nonzero().flatten()
        order = classes.argsort(stable=True)
        slot = torch.repeat_interleave(torch.arange(len(present), device=z.device), counts[present])
        place = torch.arange(len(z), device=z.device) - (counts.cumsum(0) - counts)[classes[order]]
        own = precise(z)[order]
        slots = own.new_zeros(len(present), int(counts.max()), z.shape[1]).index_put((slot, place), own)
        norms = own.new_zeros(slots.shape[:2]).index_put((slot, place), own.square().sum(1))
        # evaluate the kernel of every slot with the support vectors of its class
        whole = len(present) == len(self.vectors)
        vectors, squares, weights, offset, gamma = (
            precise(t if whole else t[present])
            for t in (self.vectors, self.squares, self.weights, self.offset, self.gamma)
        )
        sums = norms[:, :, None] + squares[:, None]
        distances = torch.baddbmm(sums, slots, vectors.transpose(1, 2), alpha=-2).clamp_min(0)
        kernel = (-gamma[:, None, None] * distances).exp()
        decided = torch.bmm(kernel, weights[:, :, None]).squeeze(2) - offset[:, None]
        return z.new_zeros(len(z)).index_put((order,), decided[slot, place].to(z.dtype))


def precise(values: Tensor) -> Tensor:
    """Return values in float64 if their device has it."""
    return values if values.device.type == "mps" else values.double()


def fit_machines(z: Tensor, y: Tensor, classes: int, nu: float, gamma: Gamma) -> Machines:
    """Fit the machine of each class to the inputs of its label, with a radial kernel.

    Args:
        z: inputs `[n, D]`.
        y: labels, int64 `[n]`; every class has one input or more.
        classes: the number of classes `K`.
        nu: the largest share of the inputs outside of the boundary, and the smallest share of support vectors.
        gamma: `γ` of the kernel; `"scale"` is `1 / (D v)` with the variance `v` of the inputs of the class, and
            `"auto"` is `1 / D`.
    """
    from sklearn.svm import OneClassSVM

    parts, gammas = [], []
    for k in range(classes):
        own = z[y == k].double().cpu().numpy()
        variance = float(own.var())
        scale = 1 / (own.shape[1] * (variance or 1.0)) if gamma == "scale" else 1 / own.shape[1]
        gammas.append(scale if isinstance(gamma, str) else float(gamma))
        machine = OneClassSVM(kernel="rbf", nu=nu, gamma=gammas[-1], cache_size=500).fit(own)
        parts.append((own[machine.support_], machine.dual_coef_[0], -float(machine.intercept_[0])))
    most = max(len(weights) for _, weights, _ in parts)
    vectors, weights = z.new_zeros(classes, most, z.shape[1]), z.new_zeros(classes, most)
    for k, (own, alpha, _) in enumerate(parts):
        vectors[k, : len(own)], weights[k, : len(own)] = torch.from_numpy(own).to(z), torch.from_numpy(alpha).to(z)
    return Machines(vectors, weights, z.new_tensor([rho for *_, rho in parts]), z.new_tensor(gammas))
