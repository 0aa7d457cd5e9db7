"""`attack` and `explain` of classifiers whose answers are known; what is written is measured from the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import underfire as uf
from underfire.cli import main, pictures

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

DIGITS = ("digits:", "--model", "python:victims:right", "--n", 6)
COLOUR = ("--model", "python:victims:colour")
Parsed = Callable[..., Any]


def pixels(path: Path | str) -> np.ndarray:
    """The pixels of a file, `[H, W, 3]`."""
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float64) / 255


def photo(path: str, red: float, size: tuple[int, int] = (12, 10)) -> None:
    """A grey image that is a little redder than blue by `red`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = np.full((size[1], size[0], 3), 100, dtype=np.uint8)
    image[:, :, 0] += round(255 * red)
    Image.fromarray(image).save(path)


def test_fgsm_of_a_linear_model_is_known_in_closed_form(parsed: Parsed) -> None:
    """Red against blue: FGSM lowers red by eps and raises blue by eps, and leaves green."""
    photo("photos/near.png", 10 / 255)
    photo("photos/deep/far.png", 40 / 255)
    rows = parsed("attack", "fgsm", "photos", *COLOUR, "--eps", "10/255", "--out", "out")
    assert rows == json.loads(Path("out/results.json").read_text())
    by_name = {row["id"]: row for row in rows}
    assert set(by_name) == {"near.png", "deep/far.png"}
    near, far = by_name["near.png"], by_name["deep/far.png"]
    assert (near["outcome"], near["pred"], near["pred_adv"]) == ("fooled", 0, 1)
    assert (far["outcome"], far["pred"], far["pred_adv"]) == ("not fooled", 0, 0)
    assert near["linf"] == pytest.approx(10 / 255, abs=1e-6) and near["l0"] == 2 * 120 and near["in_box"]
    assert near["l2"] == pytest.approx(10 / 255 * (2 * 120) ** 0.5, rel=1e-5)
    change = (pixels("out/near.adversarial.png") - pixels("photos/near.png")) * 255
    assert np.allclose(change, [[[-10, 0, 10]]])
    assert far["file"] == "deep_far.adversarial.png"
    shade = pixels("out/near.perturbation.png") * 255
    assert np.allclose(shade, [[[0, 128, 255]]], atol=1)  # magnified around mid-grey
    kinds = ("adversarial", "perturbation", "sheet")
    files = {f"{stem}.{kind}.png" for stem in ("near", "deep_far") for kind in kinds}
    assert {path.name for path in Path("out").iterdir()} == {"results.json", *files}
    assert pixels("out/near.sheet.png").shape[1] > 2 * pixels("out/near.sheet.png").shape[0]  # three panels in a row


def test_an_attack_that_rounding_to_8_bits_undoes_says_so(parsed: Parsed) -> None:
    photo("one.png", 1 / 255)
    (row,) = parsed("attack", "fgsm", "one.png", *COLOUR, "--eps", "0.7/255", "--out", "out")
    assert row["success"] and row["outcome"] == "fooled"  # 1 - 1.4 < 0; the PNG holds 1 - 2
    photo("two.png", 0)
    (row,) = parsed("attack", "fgsm", "two.png", *COLOUR, "--eps", "0.3/255", "--out", "out2")
    assert row["success"] and not row["success_saved"] and row["outcome"] == "fooled, not as PNG"


def test_the_attack_goes_through_the_defences(parsed: Parsed, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    how = ("attack", "pgd", *DIGITS, "--eps", 0.3, "--steps", 3)
    rows = parsed(*how, "--defense", "{name: bit_depth, bits: 3}", "--defense", "jpeg", "--interpreter", "gradient")
    made = uf.defenses.defend(
        uf.models.load("python:victims:right"), [{"name": "bit_depth", "bits": 3}, {"name": "jpeg"}]
    )
    batch = uf.data.load("digits:", n=6, seed=0)[:]
    through, generator = uf.defenses.through(made), torch.Generator().manual_seed(0)
    x_adv = uf.attacks.pgd(through, batch.x, batch.y, eps=0.3, steps=3, generator=generator)
    assert [row["pred_adv"] for row in rows] == made.predict(x_adv).argmax(1).tolist()
    # a random defence, and what is none
    rows = parsed(*how, "--out", "random", "--defense", "{name: resize_and_pad, keep_size: true}")
    assert {row["outcome"] for row in rows} <= {"fooled", "not fooled", "misclassified before", "fooled, not as PNG"}
    for wrong, fact in (("bit_dept", "bit_depth"), ("{quality: 3", "quality"), ("{quality: 3}", "name")):
        assert main([*map(str, how), "--out", "wrong", "--defense", wrong]) == 2
        found = capsys.readouterr().err.strip()
        assert fact in found and len(found.splitlines()) == 1


def test_the_result_is_that_of_the_library(parsed: Parsed) -> None:
    import torch

    rows = parsed("attack", "pgd", *DIGITS, "--eps", 0.1, "--steps", 3, "--seed", 5, "--batch-size", 6)
    batch = uf.data.load("digits:", n=6, seed=5)[:]
    model = uf.models.load("python:victims:right")
    generator = torch.Generator().manual_seed(5)
    x_adv = uf.attacks.pgd(model, batch.x, batch.y, eps=0.1, steps=3, generator=generator)
    assert [row["id"] for row in rows] == list(batch.ids)
    assert [row["label"] for row in rows] == batch.y.tolist()
    assert [row["pred_adv"] for row in rows] == model.predict(x_adv).argmax(1).tolist()
    assert [row["l2"] for row in rows] == pytest.approx((x_adv - batch.x).flatten(1).norm(dim=1).tolist(), rel=1e-6)
    assert Path("underfire-pgd/results.json").exists()


@pytest.mark.slow
def test_goals(parsed: Parsed) -> None:
    attack = ("attack", "pgd", *DIGITS, "--eps", 1, "--steps", 10, "--force")
    to_three = parsed(*attack, "--goal", 3, "--seed", 7)
    assert all(row["goal"] == row["pred_adv"] == 3 and row["outcome"] == "fooled" for row in to_three)
    drawn = parsed(*attack, "--goal", "random", "--seed", 3)
    assert len({row["goal"] for row in drawn}) > 1 and all(row["goal"] != row["label"] for row in drawn)
    alone = parsed(*attack, "--goal", "random", "--seed", 3, "--batch-size", 1)
    assert [row["goal"] for row in alone] == [row["goal"] for row in drawn]
    least = parsed(*attack, "--goal", "least-likely")
    assert all(row["goal"] == row["pred_adv"] for row in least)


def test_a_shown_explanation_is_measured(parsed: Parsed) -> None:
    rows = parsed(
        "attack", "pgd", *DIGITS, "--eps", 0.1, "--steps", 2, "--interpreter", "gradient_input", "--out", "out"
    )
    assert all(0 <= row["map_l1"] <= 1 and 0 <= row["map_iou"] <= 1 for row in rows)
    sheet = pixels("out/" + rows[0]["file"].replace("adversarial", "sheet"))
    assert sheet.shape[1] > 4 * sheet.shape[0]  # five panels in a row


def test_an_explanation_is_drawn_over_its_image(parsed: Parsed) -> None:
    photo("photos/one.png", 0.1, (40, 30))
    (row,) = parsed("explain", "gradient", "photos/one.png", *COLOUR, "--out", "out")
    assert (row["explained"], row["file"], row["label"]) == (0, "one.gradient.png", None)
    height, width, _ = pixels("out/one.gradient.png").shape
    assert width / height == pytest.approx(4 / 3) and height >= 224
    (row,) = parsed("explain", "gradient", "photos/one.png", *COLOUR, "--goal", 1, "--out", "out", "--force")
    assert row["explained"] == 1 and row["pred"] == 0


def test_images_of_different_sizes_and_a_seeded_choice(parsed: Parsed) -> None:
    for i in range(5):
        photo(f"photos/{i}.png", 0.1, (10 + i, 10))
    rows = parsed("explain", "gradient", "photos", *COLOUR, "--out", "all")
    assert [row["id"] for row in rows] == [f"{i}.png" for i in range(5)]
    some = parsed("explain", "gradient", "photos", *COLOUR, "--n", 2, "--seed", 1, "--out", "some")
    again = parsed("explain", "gradient", "photos", *COLOUR, "--n", 2, "--seed", 1, "--out", "again")
    assert some == again and len(some) == 2
    cropped = parsed("attack", "fgsm", "photos", *COLOUR, "--size", 8, "--out", "cropped")
    assert len(cropped) == 5 and pixels("cropped/0.adversarial.png").shape == (8, 8, 3)


def test_the_table_names_what_happened(shown: Callable[..., str]) -> None:
    photo("a[b].png", 10 / 255)
    text = shown("attack", "fgsm", "a[b].png", *COLOUR, "--eps", "10/255")
    assert "a[b].png" in text and "fooled" in text
    assert "10/255" in text and "L∞" in text and "linf" not in text  # sizes as the report writes them
    assert shown("attack", "fgsm", "a[b].png", *COLOUR, "--quiet", "--force") == ""


@pytest.mark.parametrize("verb", [("attack", "pgd"), ("explain", "gradient"), ("explain", "--all")])
def test_a_model_of_tables_is_refused(capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]) -> None:
    assert main([*verb, "digits:", "--model", "python:victims:table"]) == 2
    error = capsys.readouterr().err
    assert "'table'" in error and "images" in error and len(error.strip().splitlines()) == 1


def test_an_attack_that_keeps_the_class_is_not_said_to_have_failed() -> None:
    row = {"label": 0, "pred": 0, "success": False}
    assert [pictures._outcome(row, aimed=aimed) for aimed in (True, False)] == ["not fooled", "class kept"]
