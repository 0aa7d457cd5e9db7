"""FAB (Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack, ICML 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.objectives import margin
from underfire.ascent.rows import best_row, class_by_class, in_parts, likeliest_others
from underfire.ascent.step import Targets, succeeded
from underfire.ascent.threats import Threat
from underfire.attacks.fab.planes import onto_plane
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.gradients.classes import nearest_boundary
from underfire.gradients.smoothing import norms
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, default_generator, per_sample

#: RADIUS is the radius of the random starts if neither eps nor an earlier success bounds it; DUAL is the order of the
#: dual norm, in which gradients are measured.
RADIUS = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


@card(
    "attack",
    paper="Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack, ICML 2020",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2", "l1"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
    minimal=True,
)
def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor | None = None,
    steps: int = 100,
    candidates: int = 9,
    boundaries: Literal["nearest", "each"] = "nearest",
    keep: Literal["best", "success"] = "best",
    restarts: int = 1,
    random_start: bool = False,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    patience: int | None = None,
    chunk: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Project onto the linearised boundary inside the box in every step, with a bias towards the clean image.

    An iterate that is across the boundary is moved back towards the clean image. The paper's targeted version (FAB-T)
    counts any wrong class as a success; with a goal (ours) only the goal counts, and the boundary is the one between
    the goal and the likeliest other class.

    Args:
        steps: number of steps of each run.
        candidates: how many of the likeliest other classes are tried (9 are all others of ten classes).
        boundaries: `"nearest"` computes the boundaries of all candidates in every step, a backward pass each, and takes
            the nearest; `"each"` makes one run for each candidate of the clean image (FAB-T), with one backward pass a
            step.
        keep: `"success"` ends the search for a sample at its first success within eps, which is fastest but seldom the
            nearest; `"best"` uses all steps and restarts.
        restarts: number of runs, of which those after the first start at random; the nearest success counts.
        alpha_max: largest weight of the projection of the clean image in a step.
        eta: overshoot: length of a step as a multiple of the distance to the boundary.
        beta: the share of its perturbation that an iterate keeps when it is moved back from across the boundary.
        patience: give up a run if its nearest success is beyond 1.5 eps and has not come nearer by at least 1 % in this
            many steps (ours); None never gives up.

    Returns:
        The nearest success of each sample, shaped like `x`; the clean image if there is none.
    """
    generator = default_generator(generator, x.device)
    at_least_one(steps=steps, candidates=candidates, restarts=restarts, chunk=1 if chunk is None else chunk)
    at_least_one(patience=1 if patience is None else patience)
    check_choice(("best", "success"), keep=keep)
    check_choice(("nearest", "each"), boundaries=boundaries)
    if not (0 <= alpha_max <= 1 and eta >= 1 and 0 < beta < 1):
        raise InputError(f"alpha_max is in [0, 1], eta >= 1, beta in (0, 1); got {alpha_max}, {eta}, {beta}")
    nearest = Nearest(x.detach(), norm, eps, among=("linf", "l2", "l1"), domain=domain_of(model))
    with frozen(model):
        logits, targets = evaluate_clean(model, x, y, goal, nearest, chunk)
        if len(x) == 0:
            return nearest.x_adv
        if goal is not None:
            classes = goal[:, None]
        elif boundaries == "each":
            classes = likeliest_others(logits, y, candidates)
        else:
            classes = y[:, None]  # one row per sample

        def done() -> Tensor:
            """Return which samples need no more steps, bool `[B]`."""
            return nearest.found if keep == "success" else nearest.size == 0

        # a row of a run is a sample, or with boundaries="each" a sample and one class to reach
        for restart in range(restarts):
            for index, tried in class_by_class(classes, chunk or len(x), done):
                z = nearest.x[index]
                if random_start or restart > 0:
                    z = _random_start(nearest, index, generator)
                rows, waiting = targets.take(index), _Patience(patience, nearest, index)
                for _ in range(steps):
                    to = tried if boundaries == "each" else rows.goal
                    # With a goal there are several boundaries, and the bias could keep a row from ever crossing one: no
                    # bias before its first success.
                    bias = alpha_max if goal is None else alpha_max * per_sample(nearest.found[rows.index], z)
                    z = _step(model, nearest.x[rows.index], z, rows, to, candidates, nearest.threat, bias, eta)
                    # record the successes; rows that are done leave the run
                    with torch.no_grad():
                        success = succeeded(model(z), rows.y, rows.goal)
                    _record(nearest, z[success], rows.index[success])
                    stays = (~done()[rows.index] & ~waiting.gives_up(z, success, rows.index)).nonzero().squeeze(1)
                    if len(stays) == 0:
                        break
                    # move iterates that are across the boundary back towards the clean image
                    inside = nearest.x[rows.index] + beta * (z - nearest.x[rows.index])
                    z = torch.where(per_sample(success, z), inside, z)
                    if len(stays) < len(z):
                        rows, tried, z = rows.take(stays), tried[stays], z[stays]
                        waiting.take(stays)
        # final search between each success and its clean image
        if keep == "best":
            _final_search(model, nearest, targets, chunk)
    return nearest.x_adv


class _Patience:
    """Count the steps of each row without progress, and tell which rows may give up."""

    def __init__(self, patience: int | None, nearest: Nearest, index: Tensor) -> None:
        self.patience, self.nearest = patience, nearest
        self.size = torch.full_like(nearest.size[index], float("inf"))
        self.steps = torch.zeros_like(index)

    def take(self, rows: Tensor) -> None:
        """Keep only these rows."""
        self.size, self.steps = self.size[rows], self.steps[rows]

    def gives_up(self, z: Tensor, success: Tensor, index: Tensor) -> Tensor:
        """Return which rows may give up after a step to `z`, bool `[M]`.

        A row gives up after `patience` steps without progress, if its nearest success is far beyond eps.
        """
        if self.patience is None:
            return torch.zeros_like(success)
        size = torch.where(success, self.nearest.threat.size(self.nearest.x[index], z), float("inf"))
        self.steps = torch.where(size < 0.99 * self.size, 0, self.steps + 1)
        self.size = torch.minimum(self.size, size)
        eps = torch.as_tensor(self.nearest.threat.eps).to(size).expand_as(self.nearest.size)[index]
        return (self.steps >= self.patience) & self.size.isfinite() & (self.size > 1.5 * eps)


def _step(
    model: nn.Module,
    x: Tensor,
    z: Tensor,
    targets: Targets,
    to: Tensor | None,
    candidates: int,
    threat: Threat,
    alpha_max: float | Tensor,
    eta: float,
) -> Tensor:
    """Return the iterates after a step from `z` across a boundary, with a bias towards `x`, `[B, ...]`.

    The boundary is the nearest one, or that to the class `to` `[B]` if it is given. `alpha_max` is the largest weight
    of the bias.
    """

    def pairs(logits: Tensor) -> tuple[Tensor, Tensor]:
        if targets.goal is not None:
            return targets.goal[:, None], likeliest_others(logits, targets.goal, 1).squeeze(1)
        return (likeliest_others(logits, targets.y, candidates) if to is None else to[:, None]), targets.y

    # linearised boundary: margin f and its gradient w
    f, w = nearest_boundary(model, z, pairs, DUAL[threat.norm])
    w = threat.restrict(torch.nan_to_num(w, 0.0, 0.0, 0.0), x)
    # projections of the iterate and of the clean image onto it, weighted by their lengths
    d_1 = onto_plane(z, w, -f, threat)
    d_2 = onto_plane(x, w, (w * (z - x)).flatten(1).sum(1) - f, threat)
    order = float(threat.norm[1:])
    size_1, size_2 = norms(d_1, order).clamp_min(1e-8), norms(d_2, order).clamp_min(1e-8)
    alpha = (size_1 / (size_1 + size_2)).minimum(torch.as_tensor(alpha_max).to(x))
    return threat.clip(x, (1 - alpha) * (z + eta * d_1) + alpha * (x + eta * d_2))


def _record(nearest: Nearest, z: Tensor, index: Tensor) -> None:
    """Update the nearest success of each sample; several of the points `z` may belong to one sample."""
    if len(index):
        best = best_row(index, -nearest.threat.size(nearest.x[index], z))
        nearest.update(z[best], torch.ones_like(best, dtype=torch.bool), index[best])


def _random_start(nearest: Nearest, index: Tensor, generator: Generator | None) -> Tensor:
    """Return random points around the clean images, at most half as far as the nearest success or eps."""
    known = torch.as_tensor(nearest.threat.eps).to(nearest.size).expand_as(nearest.size)
    radius = torch.minimum(nearest.size, known)[index]
    radius = torch.where(radius.isfinite(), radius, RADIUS[nearest.threat.norm])
    return replace(nearest.threat, eps=radius / 2).random_start(nearest.x[index], generator)


def _final_search(model: nn.Module, nearest: Nearest, targets: Targets, chunk: int | None) -> None:
    """Run the paper's final search: three secant steps towards the boundary between success and failure."""
    index = (nearest.found & (nearest.size > 0)).nonzero().squeeze(1)
    if len(index) == 0:
        return
    rows, good, bad = targets.take(index), nearest.x_adv[index], nearest.x[index]

    def f(z: Tensor) -> tuple[Tensor, Tensor]:
        logits = in_parts(model, z, chunk)
        return per_sample(margin()(rows.step(model, z, logits)), z), per_sample(succeeded(logits, rows.y, rows.goal), z)

    with torch.no_grad():
        (f_good, _), (f_bad, _) = f(good), f(bad)
        for _ in range(3):
            # Go nine tenths of the way to margin zero: on the boundary itself rounding would decide about success.
            between = 0.9 * f_good / (f_good - f_bad).clamp_min(torch.finfo(good.dtype).tiny)
            z = nearest.threat.clip(nearest.x[index], good + between.clamp(0, 1) * (bad - good))
            f_z, success = f(z)
            nearest.update(z, success.flatten(), index)
            good, f_good = torch.where(success, z, good), torch.where(success, f_z, f_good)
            bad, f_bad = torch.where(success, bad, z), torch.where(success, f_bad, f_z)
