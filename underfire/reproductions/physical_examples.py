"""Measure how many adversarial images still fool a network after a simulated camera (Kurakin et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from underfire import models
from underfire.attacks import bim, eot, fgsm, illc
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Interval
from underfire.reproductions.curves import curves
from underfire.reproductions.photographs import chunks, photographs
from underfire.reproductions.registry import Outcome, Setting
from underfire.transforms.camera import camera

LEVELS = (4, 8, 16)  # eps times 255
METHODS = ("fgsm", "bim", "illc", "eot")
EOT_STEPS, EOT_SAMPLES = 10, 4
#: Strengths at which clean images lose their class about as often as with the printer and the phone of the paper.
CAMERA = {
    "rotation": 2.0,
    "perspective": 0.02,
    "blur": 0.6,
    "tone": 0.1,
    "contrast": 0.1,
    "brightness": 0.05,
    "noise": 0.01,
    "quality": 85,
}

#: Table 3 of the paper, in per cent: destruction by top-1 (average case, prefiltered case), then by top-5 (both cases).
PUBLISHED = {
    ("fgsm", 16): (12.5, 5.1, 40.0, 39.4),
    ("fgsm", 8): (33.3, 14.6, 40.0, 70.8),
    ("bim", 16): (40.4, 60.0, 69.4, 87.8),
    ("bim", 8): (52.1, 64.7, 90.5, 91.2),
    ("illc", 16): (72.2, 87.5, 85.1, 97.9),
    ("illc", 8): (86.3, 88.9, 94.6, 97.0),
}


def right(logits: Tensor, y: Tensor, top: int = 1) -> Tensor:
    """Return whether the class is among the `top` most likely, bool `[B]`."""
    return (logits.topk(top, dim=1).indices == y[:, None]).any(1)


def destruction(clean: Tensor, adversarial: Tensor, transformed: Tensor) -> Interval:
    """Return the destruction rate, equation 1 of the paper, with its Clopper-Pearson interval.

    It is the share of successful adversarial images (clean image right, adversarial image wrong) that are classified
    correctly after the transform.

    Args:
        clean: whether each clean image is classified correctly, bool `[B]`.
        adversarial: whether each adversarial image is.
        transformed: whether each adversarial image is after the transform.
    """
    return rate(transformed[clean & ~adversarial])


def run(setting: Setting) -> Outcome:
    """Run every attack at every size on the same photographs, and simulate one photograph of each result."""
    root, seed, device, quick, progress = setting.root, setting.seed, setting.device, setting.quick, setting.progress
    model = models.load(
        f"{root / 'weights' / 'mobilenet_v1_075_imagenet.safetensors'}?arch=mobilenet_v1_075_imagenet", device=device
    )
    n, steps, samples = (2, 2, 1) if quick else (80, EOT_STEPS, EOT_SAMPLES)
    levels = LEVELS[:1] if quick else LEVELS
    batch = photographs(root, model, n, seed)
    x, y = batch.x.to(device), batch.y.to(device)
    eot_options: dict[str, Any] = {"steps": steps, "samples": samples, **CAMERA}
    attacks: dict[str, Callable[..., Tensor]] = {
        "fgsm": fgsm,
        "bim": bim,
        "illc": illc,
        "eot": partial(eot, **eot_options),
    }
    photograph = camera(**CAMERA)  # type: ignore[arg-type]

    def after_camera(images: Tensor) -> Tensor:
        """Return the logits of simulated photographs, with the same random draws in every call."""
        generator = torch.Generator(device).manual_seed(seed + 1)
        return torch.cat([_predict(model, photograph(images[part], generator)) for part in chunks(len(images))])

    clean, clean_after = _predict(model, x), after_camera(x)
    results: dict[str, Any] = {"clean": {f"top-{k}": rate(right(clean_after, y, k)) for k in (1, 5)}}
    rows = [["clean", "0", "1.000", _interval(results["clean"]["top-1"]), "", "", "", ""]]
    parts, done = list(chunks(n)), 0
    total = len(parts) * len(METHODS) * len(levels)
    for name in METHODS:
        for level in levels:
            generator = torch.Generator(device).manual_seed(seed + 2)
            # attack all images in parts
            parts_adv = []
            for part in parts:
                progress(done, total, f"{name} at {level}/255")
                parts_adv.append(attacks[name](model, x[part], y[part], eps=level / 255, generator=generator))
                done += 1
            x_adv = torch.cat(parts_adv)
            # classify the results before and after the camera
            logits, logits_after = _predict(model, x_adv), after_camera(x_adv)
            found = {
                "digital": rate(right(logits, y)),
                "photographed": rate(right(logits_after, y)),
                **{
                    f"destruction top-{k}": destruction(
                        right(clean, y, k), right(logits, y, k), right(logits_after, y, k)
                    )
                    for k in (1, 5)
                },
            }
            results[f"{name} {level}"] = found
            rows.append(_row(name, level, found))
    progress(done, total, "done")
    return Outcome(
        title="Adversarial images through a camera: how many survive being printed and photographed",
        source="Kurakin, Goodfellow and Bengio, Adversarial Examples in the Physical World, ICLR Workshops 2017, "
        "Table 3 (Inception v3, 102 photographs of paper per cell)",
        spec={
            "model": "mobilenet_v1_075_imagenet",
            "data": f"folder:imagenet_sample?size=224, {n} correctly classified photographs, seed {seed}",
            "eps": [f"{level}/255" for level in levels],
            "fgsm, bim, illc": "as in the paper: steps of 1/255, min(eps + 4, 1.25 eps) of them",
            "eot": {"steps": steps, "samples": samples},
            "camera": CAMERA,
        },
        columns=(
            "attack",
            "eps (of 255)",
            "accuracy before the camera",
            "accuracy after the camera",
            "destruction, top-1",
            "paper: average, prefiltered",
            "destruction, top-5",
            "paper: average, prefiltered",
        ),
        rows=rows,
        notes=_notes(results, n, levels),
        results=results,
        pictures={"curves": _curves(results, levels)} if len(levels) > 1 else {},
    )


def _predict(model: Classifier, x: Tensor) -> Tensor:
    return model.predict(x, chunk=16)


def _interval(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" if value.n else "no successes"


def _row(name: str, level: int, found: dict[str, Interval]) -> list[str]:
    """Return the row of the table for one setting, with the figures of the paper beside ours."""
    published = PUBLISHED.get((name, level))
    paper = [f"{p / 100:.3f}, {q / 100:.3f}" for p, q in (published[:2], published[2:])] if published else ["", ""]
    return [
        name,
        str(level),
        f"{found['digital'].value:.3f}",
        _interval(found["photographed"]),
        _interval(found["destruction top-1"]),
        paper[0],
        _interval(found["destruction top-5"]),
        paper[1],
    ]


def _curves(results: dict[str, Any], levels: Sequence[int]) -> str:
    """Return a chart of the destruction rate for each attack."""
    return curves(
        {str(level): level for level in levels},
        {name: [results[f"{name} {level}"]["destruction top-1"] for level in levels] for name in METHODS},
        {
            name: [PUBLISHED[name, k][1] / 100 if (name, k) in PUBLISHED else math.nan for k in levels]
            for name in METHODS
        },
        "destruction, top-1",
    )


def _notes(results: dict[str, Any], n: int, levels: Sequence[int]) -> list[str]:
    kept, top = results["clean"]["top-1"], levels[-1]
    order = ", ".join(f"{name} {results[f'{name} {top}']['destruction top-1'].value:.2f}" for name in METHODS)
    return [
        f"n = {n} photographs, all classified correctly before the camera; after it, {_interval(kept)} are. " + _HOW,
        f"Destruction rate at eps {top}: {order}.",
        *([f"{_DRAWN}.\n\n![{_DRAWN}](physical-examples-curves.svg)"] if len(levels) > 1 else []),
        _WHY,
    ]


_DRAWN = (
    "Destruction rate by the predicted class, against eps (of 255): ours with its 95 % band, and the paper's "
    "prefiltered case as circles"
)

_HOW = """Brackets are 95 % Clopper-Pearson intervals. The destruction rate is defined as in the paper: of the
successful adversarial images, the share that is classified correctly after the camera. Every image is photographed
once, with the same random draws for all attacks."""

_WHY = """The paper printed its images and photographed them by hand; here the camera is simulated (view, lens,
exposure, sensor, JPEG), with strengths chosen from clean images alone: in the paper, 77 % to 96 % of the prefiltered
clean images, which were all classified correctly, still are after the camera. The network is a MobileNet of width 0.75
at 224 pixels, not Inception v3 at 299. The paper has no photographs at eps 4. EOT is not in the paper; it knows the
distribution of the camera but not its draws, and shows what an attack on that distribution gains."""
