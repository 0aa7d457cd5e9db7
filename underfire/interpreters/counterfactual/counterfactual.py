"""Counterfactual images (Wachter et al., Harvard JOLT 2018), guided by prototypes (Van Looveren and Klaise, 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.ascent import decoupled
from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.nearest import Nearest
from underfire.ascent.objectives import Objective, carlini, margin, objective
from underfire.ascent.step import Best, Step, Targets, succeeded, value_and_grad
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError, ModelError
from underfire.gradients.estimators import autograd
from underfire.hooks import frozen, shared_forward
from underfire.interpreters.counterfactual.plausibility import KINK, plausible
from underfire.validate import at_least_one, check_classes, check_goal, per_sample

_HALVINGS = 14  # bisections of the change at the end
_NEAREST_STEPS = 100  # steps of the search for the nearest change in L2
_GROWTHS, _GROWTH = 14, 1.25  # how often a change is made longer until it survives rounding, and by which factor
_ENTRY = 0.01  # most that the L1 term alone may change a value of the image in one step


@card(
    "interpreter",
    paper="Van Looveren and Klaise, Interpretable Counterfactual Explanations Guided by Prototypes, ECML PKDD 2021",
    gives="images",
    family="by example",
    differentiable=False,
    second_order=False,
)
def counterfactual(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    known: Tensor | None = None,
    layer: str | None = None,
    k: int = 5,
    sparsity: float = 0.1,
    smoothness: float = 0.1,
    theta: float = 1.0,
    c: float = 2.0,
    confidence: float = 0.0,
    steps: int = 100,
    binary_search_steps: int = 5,
    step_size: float = 0.1,
    levels: int | None = 256,
) -> Tensor:
    """Find the smallest change of an image, sparse and plausible, that makes the model predict another class.

    Minimise `c * hinge + sparsity * L1 + L2² + smoothness * TV + theta * prototype` by proximal gradient steps in the
    box, with a binary search over `c` for each image. The hinge is the number of logits that the other class still
    needs to be predicted. TV is the total variation of the change. The prototype term is the squared distance in
    feature space to the mean of the `k` nearest known images of the other class, divided by the distance of the
    unchanged image. DDN finds the nearest change in L2 as a further candidate, so the result never costs more than this
    change. At the end, the cheapest change is shortened as long as the model predicts the other class, and rounded.

    The result shows what the model relies on. For a network that is not trained to resist attacks, this is often noise,
    even with large weights for plausible images.

    Unlike in the paper, the hinge is of logits instead of probabilities, the encoder is a layer of the model itself,
    total variation replaces the autoencoder, `c` is in units of the weight that suffices for a linear model, and the
    steps have no momentum.

    Args:
        y: the class that the changed image must not have.
        goal: the class to reach; None allows any other class. The hinge then takes the likeliest other class of each
            step, and the prototype term takes the class with the nearest prototype.
        known: images `[N, C, H, W]` that are plausible examples of the class that the model predicts for them; None
            leaves the prototype term out.
        layer: the layer of the feature space, averaged over height and width; None is the last spatial layer.
        sparsity: weight of L1, the sum of absolute changes: the larger, the fewer pixels change.
        smoothness: weight of TV: the larger, the less the change looks like noise.
        theta: weight of the prototype term.
        c: the first weight of the hinge; multiplied by ten until there is a success, then bisected.
        steps: most steps for one `c`; an image that no longer improves stops earlier.
        step_size: length of the first step, as a share of the gradient; reduced if `sparsity` or `smoothness` is large.
            It falls with the square root of the number of remaining steps.
        levels: number of grey levels in which the images will be stored, 256 in a PNG of 8 bits: the change is rounded
            to whole levels, and made longer if the rounded image would lose its class. None does not round.

    Returns:
        The changed images, shaped like `x`, in the box. An image is returned unchanged if the model already predicts
        another class (or the goal), or if no counterfactual was found.

    Raises:
        InputError: an argument is out of range, or `goal` is `y`. DataError: images or classes are wrong, or no known
            image has the class. ModelError: logits or their gradient are not finite.
    """
    at_least_one(steps=steps, binary_search_steps=binary_search_steps, k=k)
    if levels is not None and levels < 2:
        raise InputError(f"levels must be at least 2 grey levels, such as 256, got {levels}")
    if not (0 < step_size < 0.5 and c > 0) or min(sparsity, smoothness, theta, confidence) < 0:
        raise InputError(
            "counterfactual needs 0 < step_size < 0.5, c > 0 and sparsity, smoothness, theta, confidence >= 0; got "
            f"{step_size:g}, {c:g}, {sparsity:g}, {smoothness:g}, {theta:g}, {confidence:g}"
        )
    check_inputs(model, x, y, goal)
    if goal is not None:
        check_goal(y, goal)
    x = x.detach()
    with frozen(model), shared_forward(model):
        with torch.no_grad():
            logits = model(x)
        class_score(logits, y)
        check_classes(logits, y, goal)
        bad = int((~logits.isfinite().all(1)).sum())
        if bad:
            raise ModelError(f"the model's logits are NaN or infinite for {bad} of {len(x)} images")
        targets = Targets(y, goal, torch.arange(len(x), device=x.device))
        targets = targets.take((~succeeded(logits, targets.y, targets.goal)).nonzero().squeeze(1))
        if not len(targets.index):
            return x.clone()
        other_terms = plausible(model, x, targets, known, layer, k, theta, smoothness)
        # longer steps would oscillate over the kinks of L1 and TV
        step_size = min(step_size, _ENTRY / max(sparsity, 1e-12), KINK / (4 * max(smoothness, 1e-12)))
        search = _Search(model, x, other_terms, sparsity, confidence)
        # the unit of c, from logits and gradients of the unchanged images
        unit = search.sufficient_weight(targets)
        weights = BinarySearch(x, c)
        # begin with the nearest change in L2; its class may differ from the class that the descents reach
        search.keep_nearest(targets)
        # binary search over c
        for _ in range(binary_search_steps):
            reached = search.descend(targets, weights.c[targets.index] * unit, steps, step_size)
            weights.update(reached, targets.index)
        search.shorten(targets)
        if levels is not None:
            search.round(targets, levels)
    return search.best.x_adv


class _Search:
    """The search for the cheapest counterfactuals, and the best ones found so far.

    Attributes:
        best: the cheapest counterfactuals; the score is minus the objective without the hinge. An image without a
            success stays unchanged.
        other_terms: the objective of `plausible`, which is minus the other terms, or None.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, other_terms: Objective | None, sparsity: float, confidence: float
    ) -> None:
        self.model, self.x, self.other_terms = model, x, other_terms
        self.sparsity, self.confidence = sparsity, confidence
        self.hinge, self.lead = carlini(6, confidence), margin()
        self.best = Best(x)

    def smooth_objective(self, weight: Tensor) -> Objective:
        """Return the differentiable part of the objective: the hinge, weighted for each sample, and the other terms."""

        def hinge(step: Step) -> Tensor:
            return weight * self.hinge(step)

        return objective(hinge) if self.other_terms is None else objective(hinge) + self.other_terms

    def sufficient_weight(self, targets: Targets) -> Tensor:
        """Return the weight with which the hinge would just suffice if the model were linear, `[M]`."""
        x = self.x[targets.index]
        lead, g = autograd(lambda z: self.lead(targets.step(self.model, z, self.model(z))), x)
        flat = g.flatten(1)
        bad = int((~flat.isfinite().all(1)).sum())
        if bad:
            raise ModelError(f"the model's gradient is NaN for {bad} of {len(x)} images")
        lack, flat = (self.confidence - lead).clamp_min(1e-6), flat.abs().clamp_min(1e-12)
        # the weight at which L2² and L1 rise as fast along the change as the hinge falls
        return (2 * lack / flat.square().sum(1) + self.sparsity / flat.amax(1)).clamp_max(1e12)

    def keep_best(
        self, z: Tensor, logits: Tensor, other: Tensor, targets: Targets, only: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keep images that succeed at a lower cost than before; return which succeed and all costs, `[M]`.

        `only` says which images may count as a success, bool `[M]`; None is all.
        """
        change = (z - self.x[targets.index]).flatten(1)
        cost = self.sparsity * change.abs().sum(1) + change.square().sum(1) - other
        success = succeeded(logits, targets.y, targets.goal) & (
            self.lead(targets.step(self.model, z, logits)) >= self.confidence
        )
        success = success if only is None else success & only
        self.best.update(z[success], success[success], -cost[success], targets.index[success])
        return success, cost

    def descend(self, targets: Targets, c: Tensor, steps: int, step_size: float) -> Tensor:
        """Take proximal gradient steps with the hinge weighted by `c`; return which images succeeded, bool `[M]`."""
        succeeded_once = torch.zeros_like(targets.y, dtype=torch.bool)
        rows = torch.arange(len(targets.y), device=targets.y.device)
        z, weight = self.x[targets.index], c
        # the lowest cost without the hinge, now and at the last check
        least, before = torch.full_like(c, float("inf")), torch.full_like(c, float("inf"))
        window = max(steps // 10, 5)
        for step in range(steps):
            # forward and backward pass
            x = self.x[targets.index]
            logits, value, g = value_and_grad(self.model, self.smooth_objective(weight), z, targets)
            with torch.no_grad():
                hinge = weight * self.hinge(targets.step(self.model, z, logits))
            # keep the best
            success, cost = self.keep_best(z, logits, value - hinge, targets)
            succeeded_once[rows] |= success
            least = least.minimum(cost - hinge)
            # gradient step, then the proximal step of L1
            alpha = step_size * (1 - step / steps) ** 0.5
            change = z - alpha * (2 * (z - x) - g) - x
            z = (x + change.sign() * (change.abs() - alpha * self.sparsity).clamp_min(0)).clamp(0, 1)
            # leave out images that no longer improve
            if step % window == window - 1:
                improves = (least < before - 1e-3 * before.abs().nan_to_num(posinf=0)).nonzero().squeeze(1)
                if not len(improves):
                    break
                before = least
                if len(improves) < len(rows):
                    z, weight, least, before, rows = (t[improves] for t in (z, weight, least, before, rows))
                    targets = targets.take(improves)
        return succeeded_once

    def keep_nearest(self, targets: Targets) -> None:
        """Keep the nearest success of every image in L2, as DDN finds it."""
        nearest = Nearest(self.x, "l2", domain=domain_of(self.model))
        decoupled.descend(self.model, targets, nearest, _NEAREST_STEPS)
        z = nearest.x_adv[targets.index]
        with torch.no_grad():
            logits = self.model(z)
            self.keep_best(z, logits, self.other_value(targets, z, logits), targets)

    def other_value(self, targets: Targets, z: Tensor, logits: Tensor) -> Tensor:
        """Return minus the other terms of changed images `z`, `[M]`."""
        terms = self.other_terms
        return logits.new_zeros(len(z)) if terms is None else terms(targets.step(self.model, z, logits))

    @torch.no_grad()
    def round(self, targets: Targets, levels: int) -> None:
        """Round the changes to whole grey levels, so that the images keep their class when they are stored.

        Each change is made longer until the rounded image succeeds, and then shortened as long as it succeeds. If no
        rounded image succeeds, the image keeps its counterfactual without rounding.
        """
        targets = targets.take(self.best.found[targets.index].nonzero().squeeze(1))
        if not len(targets.index):
            return
        before, self.best = self.best, Best(self.x)
        x, far = self.x[targets.index], before.x_adv[targets.index]

        def succeeds(length: Tensor) -> Tensor:
            z = (x + (length * (far - x) * (levels - 1)).round() / (levels - 1)).clamp(0, 1)
            stored = self.model((z * (levels - 1)).round() / (levels - 1))
            survives = succeeded(stored, targets.y, targets.goal)
            logits = self.model(z)
            success, _ = self.keep_best(z, logits, self.other_value(targets, z, logits), targets, only=survives)
            return per_sample(success, x)

        # make the changes longer
        low, high = x.new_zeros(len(x), 1, 1, 1), x.new_ones(len(x), 1, 1, 1)
        for _ in range(_GROWTHS):
            success = succeeds(high)
            if bool(success.all()):
                break
            low, high = torch.where(success, low, high), torch.where(success, high, high * _GROWTH)
        # shorten them
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            success = succeeds(middle)
            low, high = torch.where(success, low, middle), torch.where(success, middle, high)
        found = per_sample(self.best.found, self.x)
        self.best.x_adv = torch.where(found, self.best.x_adv, before.x_adv)

    @torch.no_grad()
    def shorten(self, targets: Targets) -> None:
        """Shorten the change of each image by bisection as long as the model predicts the other class."""
        targets = targets.take(self.best.found[targets.index].nonzero().squeeze(1))
        if not len(targets.index):
            return
        x, far = self.x[targets.index], self.best.x_adv[targets.index]
        low, high = x.new_zeros(len(x), 1, 1, 1), x.new_ones(len(x), 1, 1, 1)
        for _ in range(_HALVINGS):
            # forward pass half way
            middle = (low + high) / 2
            z = (x + middle * (far - x)).clamp(0, 1)
            logits = self.model(z)
            success, _ = self.keep_best(z, logits, self.other_value(targets, z, logits), targets)
            # bisect
            success = per_sample(success, x)
            low, high = torch.where(success, low, middle), torch.where(success, middle, high)
