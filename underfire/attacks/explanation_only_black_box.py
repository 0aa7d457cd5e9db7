"""AttaXAI (Tamam, Lapid and Sipper, Foiling Explanations in Deep Neural Networks, TMLR 2023)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.evolution import evolve
from underfire.ascent.map_objectives import MapObjective, by_map, keep_output, move_map, remembered
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Interpreter
from underfire.ascent.score_based import Aim
from underfire.ascent.step import Step
from underfire.ascent.target_maps import Clean, TargetMap
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import Unsupported
from underfire.validate import at_least, default_generator


@card(
    "attack",
    paper="Tamam, Lapid and Sipper, Foiling Explanations in Deep Neural Networks, TMLR 2023",
    knowledge="black-box",
    norms=("linf", "l2"),
    goals=("untargeted",),
    random=True,
    atlas="AML.T0043.001",
    quadrant="prediction kept, map changed",
    quick={"queries": 50, "samples": 5},
)
def explanation_only_black_box(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter | None = None,
    goal: Tensor | None = None,
    objective: MapObjective = "top_k",
    target: Tensor | TargetMap | None = None,
    resize: bool = False,
    quantile: float = 0.9,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    queries: int | Tensor = 10_000,
    samples: int = 20,
    sigma: float = 0.01,
    latin: bool = True,
    step_size: float | Tensor | None = None,
    move: Move | None = None,
    output_weight: float | None = None,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Change the explanation and keep the predicted class, by queries alone.

    A query returns the logits of an image and the map of its predicted class. Natural evolution strategies maximise
    the change of the map minus `output_weight` times the squared change of the probabilities; they estimate the
    gradient from pairs of queries around the iterate. The attack considers only iterates with the predicted class of
    the clean image, and returns the one with the largest change of the map. The published algorithm shows a target map
    (`objective="target_map"`) and adapts the standard deviation of the directions; here this deviation is constant.

    Args:
        interpreter: any function `(model, x, classes) -> [B, 1, h, w]`, differentiable or not; its calls of the model
            are part of the query. None reads the map from the output of the model, `(logits, map)`.
        objective: see `explanation_only`.
        target: the maps to show with `objective="target_map"`, `[B, 1, h, w]`, or a rule that makes them, such as
            `random_patch()` (see `ascent.target_maps`).
        resize: whether to resize a target map whose size is not that of the interpreter's maps; if False, such a target
            raises an error.
        quantile: the top pixels of `objective="top_k"` are the pixels above this quantile of the clean map.
        samples: number of random directions per step; each costs two queries, one on either side of the iterate.
        sigma: standard deviation of the entries of a direction.
        latin: whether to draw the directions from a Latin hypercube, as AttaXAI does, instead of independently.
        step_size: length of the first step; the lengths fall linearly to a tenth of it. None is `eps / 5`.
        move: how estimated gradients are used; None is the plain gradient. (AttaXAI uses `adam`.)
        output_weight: see `explanation_only`.

    Raises:
        Unsupported: there is a goal.
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    if goal is not None:
        raise Unsupported("explanation_only_black_box has no goal, it keeps the predicted class; use adv2_black_box")
    domain_of(model).require_images("explanation_only_black_box")
    check_inputs(model, x, y)
    weight = (25.0 if objective == "target_map" else 1.0) if output_weight is None else output_weight
    at_least(0, output_weight=weight)

    draw = default_generator(generator, x.device)

    def begin(clean: Step) -> Aim:
        """Return the aim for the queried clean images; a success is an iterate that keeps their predicted class."""
        assert clean.maps is not None
        predicted = clean.logits.argmax(1)
        aimed = Clean(clean.maps, predicted, predicted)
        aim = move_map(objective, None, aimed, target=target, resized=resize, quantile=quantile, generator=draw)
        total, change = remembered(aim)
        if weight:
            total = total + weight * keep_output(clean.logits)
        return Aim(total, predicted, by_map(change))

    return evolve(
        model,
        x,
        y,
        interpreter=interpreter,
        begin=begin,
        goal=None,
        norm=norm,
        eps=eps,
        queries=queries,
        samples=samples,
        sigma=sigma,
        latin=latin,
        step_size=step_size,
        move=move,
        chunk=chunk,
        generator=draw,
    )
