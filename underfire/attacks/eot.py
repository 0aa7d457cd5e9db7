"""Expectation over transformation (Athalye et al., Synthesizing Robust Adversarial Examples, ICML 2018)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent import loop, moves
from underfire.ascent.moves import StepSize
from underfire.ascent.objectives import Objective, log_success
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.gradients import views
from underfire.transforms.camera import Transform, camera
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Athalye, Engstrom, Ilyas and Kwok, Synthesizing Robust Adversarial Examples, ICML 2018",
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
)
def eot(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    steps: int = 40,
    step_size: StepSize | None = None,
    samples: int = 8,
    transform: Transform | None = None,
    rotation: float = 3.0,
    perspective: float = 0.03,
    blur: float = 0.8,
    tone: float = 0.15,
    contrast: float = 0.15,
    brightness: float = 0.08,
    noise: float = 0.015,
    quality: int | None = 75,
    objective: Objective | None = None,
    keep: loop.Keep = "last",
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """PGD on the average over random photographs of the image, so that it stays adversarial on paper.

    Every step sees `samples` new photographs of every image. The size is bounded by projection, as in the authors'
    later work; the paper itself puts a price on the expected distance in a colour space. Audits judge the returned
    image as it is; to judge it as a camera sees it, ask
    `model(transforms.camera.camera()(x_adv, generator)).argmax(1)`, several times for each image.

    Args:
        step_size: length of a step in the norm, or a schedule; None falls from `5 * eps / steps` to a tenth of it,
            since the gradient is a random one.
        samples: photographs of every image in every step; each costs a pass.
        transform: another random transformation, `(x', generator) -> x''`, differentiable; None is the camera.
        rotation: of the camera, in degrees at most; this and what follows mean nothing for another transformation.
        perspective: by which share of the sides its corners move at most.
        blur: its largest standard deviation, in pixels.
        tone: powers (its gamma) between `1 / (1 + tone)` and `1 + tone`.
        contrast: between `1 - contrast` and `1 + contrast`.
        brightness: its largest shift.
        noise: its largest standard deviation.
        quality: lowest JPEG quality; None leaves JPEG out.
        objective: what to make large on average; None is the log-probability of success, with a goal the paper's.
        keep: `"last"`; `"best"` and `"success"` judge the image itself, not its photographs.
    """
    at_least_one(steps=steps, samples=samples)
    photograph = transform or camera(
        rotation=rotation,
        perspective=perspective,
        blur=blur,
        tone=tone,
        contrast=contrast,
        brightness=brightness,
        noise=noise,
        quality=quality,
    )
    first = 5 * eps / steps
    return loop.ascend(
        model,
        x,
        y,
        objective or log_success(),
        ball(norm, eps, mask, among=("linf", "l2")),
        goal=goal,
        steps=steps,
        step_size=moves.linear(first, first / 10) if step_size is None else step_size,
        view=views.eot(photograph, samples),
        keep=keep,
        generator=generator,
    )
