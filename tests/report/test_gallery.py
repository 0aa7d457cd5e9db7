"""The gallery: which images, attacks and maps it shows, what it says about them, and how it draws them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from tests.networks import rand
from underfire.audit.ledger import Ledger
from underfire.audit.summary import findings
from underfire.figures import heatmap
from underfire.report import pictures, selection
from underfire.report.gallery import Gallery, gallery

pytestmark = pytest.mark.slow  # every page is drawn from a whole run folder

Synthetic = Callable[..., Ledger]
FORGED = ("fgsm linf", "pgd linf", "adv2 grad_cam")


def shown(ledger: Ledger) -> Gallery:
    return gallery(ledger, findings(ledger), None)


def names(found: Gallery) -> list[str]:
    return [sample.title.partition("(")[2].strip(")") for sample in found.samples]


def test_images_of_the_headline_come_first_and_wrong_ones_never(synthetic: Synthetic) -> None:
    # of 20 samples, FGSM fools s0 to s12, and s19 is wrong without an attack
    run: dict[str, Any] = {"n": 20, "attacks": ["fgsm linf"], "gallery": 4, "checks": ()}
    found = shown(synthetic(**run, stored=range(19, 9, -1)))
    assert names(found) == ["s12", "s11", "s10", "s18"]
    assert [sample.columns[1].fooled for sample in found.samples] == [True, True, True, False]
    assert found.told == (
        "Shown: 4 of the 19 images that the model classifies correctly without an attack, first the 3 that are fooled "
        "by fgsm linf, because the headline rests on these; left out: 1 image that it gets wrong without an attack (no "
        "attack is to blame for it)."
    )
    assert names(shown(synthetic(**run, stored=[19, 3]))) == ["s3"]
    assert shown(synthetic(**run, stored=[19])) == Gallery()


def test_the_attacks_and_the_map_of_the_headline_come_first(synthetic: Synthetic) -> None:
    found = shown(synthetic(attacks=FORGED, interpreters=("gradient", "grad_cam"), gallery=3))
    (first, *_), of = found.samples, selection.basis(findings(synthetic(attacks=FORGED, gallery=3)))
    assert [column.name for column in first.columns] == ["Clean", "pgd linf", "adv2 grad_cam"]
    assert [row.name for row in first.rows] == ["Image", "Change", "grad_cam map", "gradient map"]
    assert len(found.samples) == 3 and "all of which are fooled by each of pgd linf and adv2 grad_cam" in found.told
    assert found.told.endswith("and 1 attack that the headline is not about.")
    assert (of.interpreter, of.withstood) == ("grad_cam", False)
    # the IoU with the clean map stands under every map after an attack
    notes = [[picture and picture.note for picture in row.pictures] for row in first.rows]
    assert notes[2:] == [["", "IoU 0.25", "IoU 0.90"], ["", "IoU 0.25", "IoU 0.25"]]
    assert notes[1] == [None, "× 16", "× 16"]


def test_a_model_that_withstands_rests_on_the_images_that_no_attack_fools() -> None:
    hit: Any = type("Hit", (), {"label": "PGD"})
    of = selection.Basis([hit], "", withstood=True)
    told = selection.told(of, shown=8, resting=7, right=90, wrong=0, left_out=0)
    assert "first the 7 that withstand PGD, because the headline rests on these; left out: nothing." in told


def test_a_run_that_cannot_be_believed_has_no_images_on_which_its_headline_rests(synthetic: Synthetic) -> None:
    blind = [("gradients", False, 1.0, 0.05, "No gradient.")]
    found = shown(synthetic(attacks=["fgsm linf"], checks=blind, gallery=2))
    assert "all of which are fooled by fgsm linf; left out" in found.told


def test_maps_with_negative_values_have_one_scale_around_zero(synthetic: Synthetic, monkeypatch: Any) -> None:
    read = Ledger.gallery

    def signed(ledger: Ledger, craft: str) -> dict[str, torch.Tensor]:
        return {
            name: value - 0.5 if name == "map_adv.gradient" else value for name, value in read(ledger, craft).items()
        }

    monkeypatch.setattr(Ledger, "gallery", signed)
    (first, *_) = shown(synthetic(attacks=FORGED, gallery=3)).samples
    assert [row.scale for row in first.rows] == ["", "", "sequential", "diverging"]
    # orange for the largest value of a map without negative values, as for that of its neighbour
    clean = first.rows[3].pictures[0]
    assert clean
    red, _, blue = Image.open(io.BytesIO(base64.b64decode(clean.uri.partition(",")[2]))).convert("RGB").split()
    assert max(r - b for r, b in zip(red.tobytes(), blue.tobytes(), strict=True)) > 100
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    assert not torch.equal(heatmap(ramp, ramp, signed=True), heatmap(ramp, ramp))


def test_small_pictures_are_exact_and_photographs_fit_on_the_page() -> None:
    small, photograph = (rand(3, side, side) for side in (32, 256))
    exact = pictures.encode(pictures.Drawing(small, "a", "b"), (640, 85))
    read = Image.open(io.BytesIO(base64.b64decode(exact.uri.partition(",")[2])))
    assert read.tobytes() == bytes((small * 255).round().to(torch.uint8).permute(1, 2, 0).flatten().tolist())
    few, many = pictures.step([photograph] * 2, 1), pictures.step([photograph] * 2, 60)
    assert few == (640, 85) and many < few
    drawn = pictures.encode(pictures.Drawing(photograph, "a"), many)
    assert drawn.uri.startswith("data:image/jpeg;") and drawn.width == drawn.height <= many[0]
    assert 120 * len(drawn.uri) * 3 / 4 < 3e6  # a PDF has these bytes and about 0.6 MB of all else
