"""Fooling images (Nguyen et al., CVPR 2015): unrecognisable images that a model classifies with confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.moves import Move
from underfire.ascent.objectives import log_odds, objective
from underfire.ascent.threats import Linf
from underfire.attacks.fooling_images.genomes import Cppn, Direct, Encoding, Genomes
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError
from underfire.gradients.smoothing import unit
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, check_classes, default_generator, per_sample

ENCODINGS: dict[str, type[Direct] | type[Cppn]] = {"direct": Direct, "cppn": Cppn}


@card(
    "attack",
    paper="Nguyen, Yosinski and Clune, Deep Neural Networks Are Easily Fooled: High Confidence Predictions for "
    "Unrecognizable Images, CVPR 2015",
    knowledge="black-box",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"steps": 2, "population": 10},
)
def fooling_images(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 1.0,
    encoding: Literal["direct", "cppn", "gradient"] = "direct",
    steps: int = 200,
    population: int = 200,
    step_size: float = 0.02,
    grey_weight: float = 0.01,
    chunk: int = 100,
    generator: Generator | None = None,
) -> Tensor:
    """Make an unrecognisable image for each sample, which the model assigns to the goal; only eps ties it to `x`.

    If the whole box is allowed (an eps of 1 for every sample), evolution keeps one champion for each class, and every
    child may become the champion of any class; samples with the same goal then share one image. With a smaller eps
    (ours) each sample evolves separately, and its genomes are painted into the interval that eps allows for each entry.

    Args:
        x: clean images, which give the shape of the result and the centre of the ball.
        goal: classes to make images of, int64 `[B]`; None is the likeliest class of each image except `y`.
        eps: largest change of an entry, one number or one per sample `[B]`; 1 allows any image.
        encoding: `"direct"` evolves pixels, `"cppn"` evolves networks that map positions to colours (see `genomes.py`);
            both need only the model's logits, for `steps + 1` times `population` images. `"gradient"` climbs the
            log-odds from noise with an L2 penalty, and needs gradients.
        steps: number of generations, or of gradient steps.
        population: number of children in each generation of the whole batch, raised to one per sample where each
            evolves separately (the paper does not give it).
        step_size: length of a gradient step, as the root mean square over the entries; only for `"gradient"`.
        grey_weight: weight of the squared distance from mid-grey; only for `"gradient"`.
        chunk: number of images that are painted and go through the model at once.
    """
    domain_of(model).require_images("fooling_images")
    generator = default_generator(generator, x.device)
    at_least_one(steps=steps, population=population, chunk=chunk)
    check_choice(("linf",), norm=norm)
    check_choice((*ENCODINGS, "gradient"), encoding=encoding)
    check_inputs(model, x, y, goal)
    threat = Linf(eps)
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    radius = per_sample(torch.as_tensor(eps, dtype=x.dtype, device=x.device), x)
    low, high = (x - radius).clamp_min(0), (x + radius).clamp_max(1)
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        check_classes(logits, y, goal)
        if goal is None:
            goal = logits.scatter(1, y[:, None], float("-inf")).argmax(1)
        if encoding == "gradient":
            noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            # Follow the gradient itself, scaled to length one, and stay near mid-grey.
            grey = objective(lambda step: -(step.x - 0.5).square().flatten(1).sum(1))
            return ascend(
                model,
                x,
                y,
                Recipe(
                    log_odds() + grey_weight * grey,
                    threat,
                    step_rule=step_size * x[0].numel() ** 0.5,
                    move=Move(lambda z: None, lambda g, state: (unit(g, 2), state), steepest=False),
                ),
                goal=goal,
                steps=steps,
                z=low + (high - low) * noise,
            )
        painter = ENCODINGS[encoding]((x.shape[1], x.shape[2], x.shape[3]), x)
        if bool((radius >= 1).all()):
            classes, which = goal.unique(return_inverse=True)
            return _evolve(model, painter, classes, None, steps, population, chunk, generator)[0][which]
        return _evolve(model, painter, goal, (low, high), steps, population, chunk, generator)[0]


def map_elites(
    model: nn.Module,
    shape: Sequence[int],
    classes: Sequence[int] | Tensor,
    *,
    encoding: Literal["direct", "cppn"] = "direct",
    steps: int = 200,
    population: int = 200,
    chunk: int = 100,
    generator: Generator | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Evolve one fooling image for each class; a child of any champion may become the champion of any class.

    Args:
        shape: channels, height and width of the images.
        classes: the classes to make images of.
        encoding: `"direct"` or `"cppn"`.
        steps: number of generations.
        population: number of children in each generation.
        chunk: number of images that are painted and go through the model at once.
        device: where the images are made.

    Returns:
        Images `[K, C, H, W]`, and for each image the model's probability of its class, `[K]`.
    """
    generator = default_generator(generator, device)
    at_least_one(steps=steps, population=population, chunk=chunk)
    check_choice(ENCODINGS, encoding=encoding)
    if len(shape) != 3 or len(classes) == 0:
        raise InputError(f"shape must be [C, H, W], and classes must not be empty, got {shape} and {classes}")
    channels, height, width = shape
    painter = ENCODINGS[encoding]((channels, height, width), torch.empty(0, device=device))
    wanted = torch.as_tensor(classes, device=device)
    with frozen(model):
        images, odds = _evolve(model, painter, wanted, None, steps, population, chunk, generator)
    return images, odds.sigmoid()


@torch.no_grad()
def _evolve(
    model: nn.Module,
    painter: Encoding,
    classes: Tensor,
    interval: tuple[Tensor, Tensor] | None,
    steps: int,
    population: int,
    chunk: int,
    generator: Generator | None,
) -> tuple[Tensor, Tensor]:
    """Evolve one champion for every niche, and return the champions' images `[K, C, H, W]` and log-odds `[K]`.

    Args:
        model: maps images to logits.
        painter: the encoding of images as genomes.
        classes: the class of each niche, int64 `[K]`.
        interval: the smallest and largest allowed image of each niche, `[K, C, H, W]` each; None allows every image,
            and a child then competes in all niches.
        steps: number of generations after the first.
        population: number of children in each generation.
        chunk: number of images that are painted and go through the model at once.
        generator: source of every random number.
    """
    niches = len(classes)
    count = population if interval is None else max(population, niches)
    order = torch.arange(count, device=classes.device)
    champions = painter.random(niches, generator)
    images, fitness = None, torch.full((niches,), float("-inf"), device=classes.device)
    for generation in range(steps + 1):
        # draw the parents, and mutate them (random genomes in generation 0)
        if interval is not None:  # a child belongs to the ball that it was painted for
            owner = parent = (order + generation * count) % niches
        else:
            parent = torch.randint(niches, (count,), generator=generator, device=classes.device)
        children = painter.random(count, generator)
        if generation > 0:
            children = painter.mutate(_take(champions, parent), generation, generator)
        # paint and evaluate the children, some at a time
        for rows in order.split(chunk):
            part = _take(children, rows)
            painted = painter.render(part)
            if interval is not None:
                low, high = interval[0][owner[rows]], interval[1][owner[rows]]
                painted = torch.minimum(low + (high - low) * painted, high)
            # a child competes for every class, or for the niche of its own sample
            odds = _every_log_odds(model(painted))[:, classes].to(fitness)
            if interval is not None:
                own = owner[rows][:, None]
                odds = torch.full_like(odds, float("-inf")).scatter(1, own, odds.gather(1, own))
            # the best child of every niche replaces a weaker champion
            best, child = odds.max(0)
            better = best > fitness
            child = child[better]
            if images is None:
                images = painted.new_zeros(niches, *painted.shape[1:])
            images[better], fitness[better] = painted[child], best[better]
            for champion, gene in zip(champions, part, strict=True):
                champion[better] = gene[child]
    assert images is not None
    return images, fitness


def _take(genomes: Genomes, index: Tensor) -> Genomes:
    return tuple(part[index] for part in genomes)


def _every_log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of every class, `[N, K]`; they keep growing where a probability rounds to one."""
    log_p = logits.log_softmax(1)
    top = logits.argmax(1, keepdim=True)
    lead = logits.gather(1, top) - logits.scatter(1, top, float("-inf")).logsumexp(1, keepdim=True)
    odds = log_p - torch.log1p(-log_p.exp().clamp_max(0.5))  # correct for all but the top class
    return odds.scatter(1, top, lead).nan_to_num(torch.finfo(odds.dtype).min)
