"""Brightness, contrast and complement as corner cases (Wu et al., Deep Validation, DSN 2019)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep
from underfire.ascent.parametric import Photometric
from underfire.ascent.search import Search, search_parameters
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.validate import check_choice


@card(
    "attack",
    paper="Wu, Xu, Zhong, Lyu and King, Deep Validation: Toward Detecting Real-World Corner Cases for Deep Neural "
    "Networks, DSN 2019",
    knowledge="black-box",
    norms=("photometric",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"search": "random", "samples": 3},
)
def photometric(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "photometric",
    eps: float | Tensor = 1.0,
    brightness: float = 0.95,
    contrast: tuple[float, float] = (0.0, 5.0),
    complement: bool = True,
    search: Search = "grid",
    values: int = 21,
    samples: int = 100,
    steps: int = 100,
    step_size: float = 0.02,
    restarts: int = 1,
    random_start: bool = True,
    keep: Keep = "success",
    chunk: int = 256,
    generator: Generator | None = None,
) -> Tensor:
    """Change brightness and contrast of every image or of its complement, `gain * x + bias`, until it fools the model.

    The paper applies one transformation at a time, from mild to strong; the grid does the same if the ranges of the
    others are empty, and tries all combinations if they are not (ours).

    Args:
        eps: share of all ranges that may be used, one number or one per sample `[B]`.
        brightness: largest bias in either direction (the paper only brightens).
        contrast: smallest and largest gain, at most and at least 1.
        complement: whether `1 - x` may be used; because it cannot be used in part, that needs an eps of at least 1.
        search: `"grid"` tries every combination, the mildest first; `"random"` tries `samples` random combinations;
            `"gradient"` climbs the margin along signs of the gradient (ours) and is the only search that needs
            gradients.
        values: number of values of gain and of bias on the grid.
        samples: number of random combinations.
        step_size: size of a step of the gradient search, as a share of every range.
        restarts: number of runs of the gradient search; those after the first start at random.
        keep: `"success"` returns the first success; `"best"` returns the changed image of the largest margin.

    Returns:
        The changed images, shaped like `x`; where nothing fools the model, those of the largest margin.
    """
    domain_of(model).require_images("photometric")
    check_choice(("photometric",), norm=norm)
    return search_parameters(
        model,
        x,
        y,
        Photometric(eps, brightness=brightness, contrast=contrast, complement=complement),
        goal=goal,
        search=search,
        points={"brightness": values, "contrast": values, "complement": 2},
        samples=samples,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        random_start=random_start,
        keep=keep,
        chunk=chunk,
        generator=generator,
    )
