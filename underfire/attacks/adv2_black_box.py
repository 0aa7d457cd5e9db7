"""ADV² without gradients: the evolution strategy of AttaXAI (Tamam et al., TMLR 2023) with the goal of ADV²."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.evolution import evolve
from underfire.ascent.map_objectives import by_map, once_reached, remembered
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Interpreter, keep_map
from underfire.ascent.score_based import Aim
from underfire.ascent.step import Step
from underfire.ascent.target_maps import Clean, TargetMap, target_maps
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.validate import at_least, check_goal, default_generator


@card(
    "attack",
    paper="Tamam, Lapid and Sipper, Foiling Explanations in Deep Neural Networks, TMLR 2023",
    knowledge="black-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted", "kept"),
    random=True,
    atlas="AML.T0043.001",
    quadrant="prediction changed, map kept",
    quick={"queries": 50, "samples": 5},
)
def adv2_black_box(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter | None = None,
    target: Tensor | TargetMap | None = None,
    resize: bool = False,
    goal: Tensor | None = None,
    keep_class: bool = False,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    queries: int | Tensor = 10_000,
    samples: int = 20,
    sigma: float = 0.01,
    latin: bool = True,
    step_size: float | Tensor | None = None,
    move: Move | None = None,
    weight: float = 100.0,
    lead: float = 1.0,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Change the prediction, and keep the explanation or change it to a given map, by queries alone.

    A query returns the logits of an image and the map of its predicted class. Natural evolution strategies estimate
    gradients from pairs of queries around the iterate. They maximise the margin until the model is fooled, and then the
    margin, limited to `lead`, minus `weight` times the map loss of ADV². The attack returns the iterate that fools the
    model and has the map nearest to the target; if no iterate fools the model, it returns the iterate with the largest
    margin. The published algorithm also adapts the standard deviation of the directions; here it is constant.

    Args:
        interpreter: any function `(model, x, classes) -> [B, 1, h, w]`, differentiable or not; its calls of the model
            are part of the query. None reads the map from the output of the model, `(logits, map)`.
        target: the map that the explanation should become: maps `[B, 1, h, w]`, or a rule that makes them, such as
            `random_patch()` (see `ascent.target_maps`); None is the map of the clean image.
        resize: whether to resize a target map whose size is not that of the interpreter's maps; if False, such a target
            raises an error.
        keep_class: whether a goal may be the label itself, so that only the explanation changes.
        samples: number of random directions per step; each costs two queries, one on either side of the iterate.
        sigma: standard deviation of the entries of a direction.
        latin: whether to draw the directions from a Latin hypercube, as AttaXAI does, instead of independently.
        step_size: length of the first step; the lengths fall linearly to a tenth of it. None is `eps / 5`.
        move: how estimated gradients are used; None is the plain gradient. (AttaXAI uses `adam`.)
        weight: weight of the map loss.
        lead: the margin, in logits, beyond which the prediction adds no gradient.

    Raises:
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    domain_of(model).require_images("adv2_black_box")
    check_inputs(model, x, y, goal)
    at_least(0, weight=weight, lead=lead)
    if goal is not None and not keep_class:
        check_goal(y, goal)
    draw = default_generator(generator, x.device)

    def begin(clean: Step) -> Aim:
        """Return the aim for the queried clean images."""
        assert clean.maps is not None
        others = clean.logits.scatter(1, y[:, None], float("-inf")).argmax(1)
        aimed = Clean(clean.maps, clean.logits.argmax(1), others if goal is None else goal)
        wanted = target_maps(target, aimed, resized=resize, generator=draw)
        likeness, closeness = remembered(keep_map(None, wanted))
        return Aim(once_reached(likeness, weight, lead), goal, by_map(closeness))

    return evolve(
        model,
        x,
        y,
        interpreter=interpreter,
        begin=begin,
        goal=goal,
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
