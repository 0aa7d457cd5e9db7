"""Rotations and translations (Engstrom et al., ICML 2019), and shear and scale as in Deep Validation (DSN 2019)."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep
from underfire.ascent.parametric import Affine
from underfire.ascent.search import Search, search_parameters
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.validate import check_choice


@card(
    "attack",
    paper="Engstrom, Tran, Tsipras, Schmidt and Madry, Exploring the Landscape of Spatial Robustness, ICML 2019",
    knowledge="black-box",
    norms=("affine",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"search": "random", "samples": 3},
)
def affine(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "affine",
    eps: float | Tensor = 1.0,
    rotation: float = 30.0,
    shear: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    translation: float = 0.1,
    padding: Literal["zeros", "border", "reflection"] = "zeros",
    search: Search = "grid",
    angles: int = 31,
    values: int = 5,
    samples: int = 10,
    steps: int = 200,
    step_size: float = 0.01,
    restarts: int = 1,
    random_start: bool = True,
    keep: Keep = "success",
    chunk: int = 256,
    generator: Generator | None = None,
) -> Tensor:
    """Rotate, shear, scale and shift every image until it fools the model.

    The default ranges and the grid of 31 angles and 5 x 5 shifts are those of the paper. Wu et al., Deep Validation,
    DSN 2019, apply one transformation at a time, from mild to strong; the grid does the same if all other ranges are
    empty, for example with `rotation=70` and `translation=0`. Their other ranges are `shear=0.5`, `scale=(0.4, 1)` and
    `translation=0.64`.

    Args:
        eps: share of all ranges that may be used, one number or one per sample `[B]`.
        rotation: largest angle in either direction, in degrees.
        shear: largest shear along either side, in either direction.
        scale: smallest and largest factor, at most and at least 1.
        translation: largest shift along either side in either direction, as a share of that side.
        padding: what fills the area outside the image: `"zeros"` (black, as in the paper), `"border"` or
            `"reflection"`.
        search: `"grid"` tries every combination, the mildest first; `"random"` tries `samples` random combinations (the
            paper's worst of 10); `"gradient"` climbs the margin along signs of the gradient (ours; the paper finds it
            much weaker) and is the only search that needs gradients of the model.
        angles: number of angles on the grid.
        values: number of values of every other parameter on the grid.
        samples: number of random combinations.
        step_size: size of a step of the gradient search, as a share of every range.
        restarts: number of runs of the gradient search; those after the first start at random.
        keep: `"success"` returns the first success; `"best"` returns the transformed image of the largest margin.

    Returns:
        The transformed images, shaped like `x`; where nothing fools the model, those of the largest margin.
    """
    domain_of(model).require_images("affine")
    check_choice(("affine",), norm=norm)
    return search_parameters(
        model,
        x,
        y,
        Affine(eps, rotation=rotation, shear=shear, scale=scale, translation=translation, padding=padding),
        goal=goal,
        search=search,
        points={name: angles if name == "rotation" else values for name in Affine.parameters},
        samples=samples,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        random_start=random_start,
        keep=keep,
        chunk=chunk,
        generator=generator,
    )
