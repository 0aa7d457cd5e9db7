"""Evaluate every interpreter: localisation of known evidence on digits, deletion and insertion on photographs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire import data, models
from underfire.attribution.comparison import map_cards, refuse_large
from underfire.catalog import Card
from underfire.data.bounding_boxes import boxes
from underfire.errors import UnderfireError
from underfire.measures import localisation
from underfire.measures.explanation import deletion, insertion
from underfire.measures.maps import informative
from underfire.measures.statistics import bootstrap_mean, rate
from underfire.measures.weak_localisation import localise
from underfire.model import Classifier
from underfire.records import Batch, Interval
from underfire.reproductions.photographs import photographs
from underfire.reproductions.registry import Outcome, Setting

DIGITS, PHOTOGRAPHS = 200, 16
CURVE_STEPS = 28  # steps of the deletion and insertion curves; each removes 1,792 pixels of a photograph
BATCH = 8
#: Options that differ from the defaults. RISE draws fewer samples: the run takes less than an hour on two cores. On
#: digits, MASK replaces pixels by black, the background, because a blur does not hide strokes.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {"rise": {"samples": 1000}, "mask": {"fill": "black"}},
    "photographs": {"rise": {"samples": 1000}},
}

Explain = Callable[..., Tensor]


@dataclass(frozen=True)
class Contestant:
    """An interpreter, or a control that does not use the network.

    Attributes:
        name: the name in the catalogue; the name of a control is in brackets.
        family: the family of the interpreter.
        explain: returns the maps; called with the options for the images, from `OPTIONS`.
        card: the card of an interpreter; None for a control.
    """

    name: str
    family: str
    explain: Explain
    card: Card | None = None


def _noise(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Return smooth noise, different for every image of a batch and equal in every run."""
    draws = torch.rand(len(x), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(draws.to(x), x.shape[2:], mode="bilinear")


def _centre(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Return a bell curve in the centre of every image."""
    row, column = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
    bell = (-(row[:, None] ** 2 + column[None] ** 2) / 0.5).exp()
    return bell.expand(len(x), 1, -1, -1)


def _edges(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Return the edges of the image (Adebayo et al. 2018)."""
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return (
        ((grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) ** 2 + (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) ** 2)
        .sqrt()
        .clamp_min(0)
    )


CONTROLS = (
    Contestant("(smooth noise)", "control", _noise),
    Contestant("(the middle)", "control", _centre),
    Contestant("(edges of the image)", "control", _edges),
)


def contestants() -> list[Contestant]:
    """Return every interpreter of the catalogue that returns a map, and the controls."""
    found = [Contestant(card.name, card.facts.family, card, card) for card in map_cards()]
    return [*found, *CONTROLS]


def _maps_of(one: Contestant, model: Classifier, batch: Batch, images: str) -> tuple[Tensor, float] | str:
    """Return the maps of a batch and the seconds per image, or the reason why there are none; `images` names them."""
    options = OPTIONS[images].get(one.name, {})
    start, parts = time.perf_counter(), []
    try:
        if one.card is not None:
            refuse_large(one.card, batch.x)
        for x, y in zip(batch.x.split(BATCH), batch.y.split(BATCH), strict=True):
            parts.append(one.explain(model, x, y, **options).detach())
    except UnderfireError as error:
        return str(error)
    return torch.cat(parts), (time.perf_counter() - start) / len(batch)


def localised(maps: Tensor, mask: Tensor) -> dict[str, Interval]:
    """Return how well maps find the known evidence, by four measures, each with a 95 % interval."""
    box = localise(maps, boxes(mask), size=(mask.shape[2], mask.shape[3]))
    hit = box.hit[box.hit.isfinite()]
    return {
        "pointing": rate(localisation.pointing_game(maps, mask)),
        "mass": bootstrap_mean(localisation.mass_inside(maps, mask)),
        "iou": bootstrap_mean(localisation.localisation_iou(maps, mask)),
        "box error": rate(1 - hit),
    }


def faithful(model: Classifier, batch: Batch, maps: Tensor) -> dict[str, Interval]:
    """Return the areas under the deletion and the insertion curve and their difference, with 95 % intervals."""
    down = deletion(model, batch.x, batch.y, maps, steps=CURVE_STEPS)
    up = insertion(model, batch.x, batch.y, maps, steps=CURVE_STEPS)
    found = {"deletion": down, "insertion": up, "gap": up - down}
    return {name: bootstrap_mean(value) for name, value in found.items()}


def run(setting: Setting) -> Outcome:
    """Measure localisation on cluttered digits, and deletion and insertion on photographs, for every interpreter."""
    root, seed, device, quick, progress = setting.root, setting.seed, setting.device, setting.quick, setting.progress
    n, m = (8, 2) if quick else (DIGITS, PHOTOGRAPHS)
    small = models.load("zoo:cluttered_digits", device=device)
    digits = _right(small, data.load("cluttered-digits:test", n=2 * n, seed=seed)[:].to(device), n)
    name = "mobilenet_v1_075_imagenet"
    large = models.load(f"{root / 'weights' / name}.safetensors?arch={name}", device=device)
    photos = photographs(root, large, m, seed).to(device)
    assert digits.mask is not None
    several = contestants()
    results: dict[str, Any] = {}
    for done, one in enumerate(several):
        progress(done, len(several), one.name)
        found: dict[str, Any] = {"family": one.family}
        # localisation on digits; a text is the reason why there are no maps
        answer = _maps_of(one, small, digits, "digits")
        if isinstance(answer, str):
            found["digits"] = answer
        else:
            found |= localised(answer[0], digits.mask) | {"flat digits": int((~informative(answer[0])).sum())}
        # deletion and insertion on photographs
        answer = _maps_of(one, large, photos, "photographs")
        if isinstance(answer, str):
            found["photographs"] = answer
        else:
            found |= faithful(large, photos, answer[0]) | {"seconds": answer[1]}
        results[one.name] = found
    progress(len(several), len(several), "done")
    share = float(digits.mask.float().mean())
    return Outcome(
        title="Comparison of interpreters: localisation of known evidence, deletion and insertion",
        source="none; the measures are those of Zhang et al. 2016 (pointing game), Dabkowski and Gal 2017 (boxes) and "
        "Petsiuk et al. 2018 (deletion, insertion)",
        spec={
            "digits": f"zoo:cluttered_digits, cluttered-digits:test, {n} correctly classified images, seed {seed}",
            "photographs": f"{name}, folder:imagenet_sample?size=224, {m} correctly classified images, seed {seed}",
            "curves": f"{CURVE_STEPS} steps; deletion to black, insertion into a blurred image",
            "options that differ from the defaults": OPTIONS,
        },
        columns=(
            "interpreter",
            "family",
            "pointing game ↑",
            "mass on the digit ↑",
            "IoU ↑",
            "box error ↓",
            "deletion ↓",
            "insertion ↑",
            "insertion − deletion ↑",
            "seconds per photograph",
        ),
        rows=[_row(name, found) for name, found in results.items()],
        notes=_notes(results, n, m, share),
        results=results,
    )


def _right(model: Classifier, batch: Batch, n: int) -> Batch:
    """Return the first `n` correctly classified images."""
    return batch.take((model.predict(batch.x).argmax(1) == batch.y).nonzero().squeeze(1)[:n])


_MEASURED = ("pointing", "mass", "iou", "box error", "deletion", "insertion", "gap")


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    cells = [_interval(found[what]) if what in found else "–" for what in _MEASURED]
    shown = name if name.startswith("(") else f"`{name}`"
    return [shown, found["family"], *cells, f"{found['seconds']:.2f}" if "seconds" in found else "–"]


def _interval(value: Interval) -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]" if value.n else "undefined"


_HOW = """n = {n} digits and {m} photographs; brackets are 95 % intervals (Clopper-Pearson for rates, BCa bootstrap for
means). The digit covers {share:.1%} of an image: a random map has about this share of its mass on the digit, and has
its maximum there about this often. The threshold of each box is chosen on the other half of the images. The rows in
brackets are controls that do not use the network."""


def _notes(results: Mapping[str, Any], n: int, m: int, share: float) -> list[str]:
    """Return the paragraphs below the table: how it was measured, who is missing, and which maps are constant."""
    notes = [_HOW.format(n=n, m=m, share=share)]
    for where in ("digits", "photographs"):
        absent = {name: found[where].rstrip(".") for name, found in results.items() if where in found}
        if absent:
            notes.append(
                f"Not measured on {where}: " + "; ".join(f"`{name}` ({why})" for name, why in absent.items()) + "."
            )
    flat = {name: found["flat digits"] for name, found in results.items() if found.get("flat digits")}
    if flat:
        notes.append(
            "Constant maps, left out of the measures that are undefined for them: "
            + ", ".join(f"`{name}` {count}" for name, count in flat.items())
            + f" of {n} digits."
        )
    return notes
