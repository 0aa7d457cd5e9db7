"""`underfire explain` with what gives no map: images, examples and rules, of a classifier whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import underfire as uf
from underfire.audit.spec import parse_spec
from underfire.cli import main
from underfire.errors import SpecError

DIGITS = ("digits:test", "--model", "python:victims:without_pooling", "--n", 3)
KNOWN = ("--reference", "digits:train", "--reference-n", 60)
Parsed = Callable[..., Any]


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float64) / 255


def files(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()} - {"results.json"}


@pytest.mark.slow
def test_a_changed_image_is_measured_and_shown(parsed: Parsed) -> None:
    rows = parsed("explain", "counterfactual", *DIGITS, "--out", "out", "--set", "confidence=0.1")
    assert rows == json.loads(Path("out/results.json").read_text())
    assert files("out") == {
        f"{Path(row['file']).name.split('.')[0]}.{end}.png" for row in rows for end in ("counterfactual", "sheet")
    }
    for row in rows:
        assert row["outcome"] == "changed" and row["in_box"] and row["pred_changed"] != row["pred"] == row["explained"]
        image = torch.tensor(pixels(Path("out", row["file"]))[:, :, 0], dtype=torch.float32)
        model = uf.models.load("python:victims:without_pooling")
        assert int(model.predict(image[None, None]).argmax(1)) == row["pred_changed"]
    sheet = pixels("out/" + rows[0]["file"].replace("counterfactual", "sheet"))
    assert 2 * sheet.shape[0] < sheet.shape[1]  # three panels in a row


@pytest.mark.slow
def test_of_a_changed_image_the_goal_is_the_class_it_gets(parsed: Parsed) -> None:
    first = parsed("explain", "counterfactual", *DIGITS, "--out", "one", "--set", "steps=50")
    goal = first[0]["pred"]
    rows = parsed("explain", "counterfactual", *DIGITS, "--goal", goal, "--out", "out", *KNOWN, "--set", "steps=50")
    assert rows[0]["outcome"] == "no change needed" and rows[0]["l2"] == 0
    for row in rows[1:]:
        assert row["pred"] == goal or (row["pred_changed"] == goal and row["l2"] > 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("prototypes", ("count=3",)), ("nearest_neighbours", ("k=4",))])
def test_examples_are_shown_beside_the_image(parsed: Parsed, name: str, settings: tuple[str, ...]) -> None:
    flags = [part for setting in settings for part in ("--set", setting)]
    rows = parsed("explain", name, *DIGITS, *KNOWN, *flags, "--out", "out")
    known = uf.data.load("digits:train", n=60)[:]
    labels = dict(zip(known.ids, known.y.tolist(), strict=True))
    for row in rows:
        assert row["examples"] and all(labels[e["id"]] == int(e["class"]) for e in row["examples"])
        sheet = pixels(f"out/{row['file']}")
        assert sheet.shape[1] / sheet.shape[0] > 0.6 * (1 + len(row["examples"]))
        if name == "prototypes":
            assert {e["class"] for e in row["examples"]} == {str(row["explained"])}


def test_rules_are_printed_with_their_fidelity(parsed: Parsed, capsys: pytest.CaptureFixture[str]) -> None:
    rows = parsed("explain", "surrogate", *DIGITS, *KNOWN, "--set", "features=parts", "--out", "out")
    assert all(row["rules"][-1].startswith("so the tree says") for row in rows)
    assert rows[0]["fidelity"]["n"] == 15 and 0 <= rows[0]["fidelity"]["value"] <= 1
    assert "brightness in row" in Path("out", rows[0]["file"]).read_text()
    arguments = ("explain", "surrogate", *DIGITS, *KNOWN, "--out", "out", "--force")
    assert main([str(argument) for argument in arguments]) == 0
    shown = capsys.readouterr()
    assert "so the tree says" in " ".join(shown.out.split()) and "tree and network agree on" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prototypes", *DIGITS), "call fit(model, data) first; here: --reference DATA_URI"),
        (("gradient", *DIGITS, *KNOWN), "gradient does not learn from data"),
        (("prototypes", *DIGITS, "--reference", "nothing:"), "unknown data 'nothing:'"),
        (("prototypes", *DIGITS, *KNOWN, "--set", "kk=3"), "unknown key 'kk'"),
        (("rise", *DIGITS, "--set", "samples=0"), "'samples' should be at least 1, got 0"),
        (("surrogate", *DIGITS, *KNOWN[:-1], 1), "digits:train: of 1 images, 0 would be held out"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], message: str) -> None:
    assert main(["explain", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not list(Path().glob("underfire-*"))


def test_an_audit_and_an_attack_take_maps_only(capsys: pytest.CaptureFixture[str]) -> None:
    message = r"'interpreters\[0\].name': prototypes gives examples, and only maps can be used here"
    with pytest.raises(SpecError, match=message):
        parse_spec({"model": "none", "data": "none", "attacks": ["fgsm"], "interpreters": ["prototypes"]})
    assert main(["attack", "fgsm", *map(str, DIGITS), "--interpreter", "counterfactual"]) == 2
    assert "counterfactual gives images, and only maps can be used here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "figure", "settings"),
    [
        ("integrated_gradients", "completeness_gap", "steps=8"),
        ("lime", "r2", "superpixels=grid"),
        ("mask", "p_deleted", "steps=2"),
    ],
)
def test_what_a_method_knows_of_its_own_map_is_told(parsed: Parsed, name: str, figure: str, settings: str) -> None:
    rows = parsed("explain", name, *DIGITS, "--set", settings, "--out", "out")
    assert all(isinstance(row[figure], float) for row in rows)
    if figure == "completeness_gap":  # the network is linear, so the sum is exact
        assert all(row[figure] < 1e-4 for row in rows)
    else:
        assert all(0 < row[figure] <= 1 for row in rows)


def test_a_classifier_behind_defences_is_explained(parsed: Parsed) -> None:
    how = ("explain", "gradient", *DIGITS, "--npy")
    rows = parsed(*how, "--defense", "{name: bit_depth, bits: 1}", "--defense", "{name: spatial_smoothing, side: 3}")
    made = uf.defenses.defend(
        uf.models.load(DIGITS[2]), [{"name": "bit_depth", "bits": 1}, {"name": "spatial_smoothing", "side": 3}]
    )
    x = uf.data.load(DIGITS[0], n=DIGITS[4], seed=0)[:].x
    assert [row["pred"] for row in rows] == made.predict(x).argmax(1).tolist()
    wanted = uf.interpreters.gradient(uf.defenses.through(made), x, made.predict(x).argmax(1))
    found = np.stack([np.load(Path("underfire-gradient") / row["file"].replace(".png", ".npy")) for row in rows])
    assert np.allclose(found, wanted.numpy(), atol=1e-6)


def test_several_interpreters_with_measures_and_raw_maps(parsed: Parsed) -> None:
    options = ("--measure", "insertion", "--measure", "sensitivity_max", "--npy", "--set", "samples=3")
    rows = parsed("explain", "gradient,smooth_grad", *DIGITS, "--out", "out", *options)
    assert [row["interpreter"] for row in rows] == ["gradient"] * 3 + ["smooth_grad"] * 3
    assert rows == json.loads(Path("out/results.json").read_text())
    model, batch = uf.models.load("python:victims:without_pooling"), uf.data.load("digits:test").subset(3)[:]
    y = model.predict(batch.x).argmax(1)
    maps = uf.interpreters.gradient(model, batch.x, y)
    wanted = uf.measures.insertion(model, batch.x, y, maps)
    assert [row["insertion"] for row in rows[:3]] == pytest.approx(wanted.tolist(), abs=1e-5)
    for row, m in zip(rows[:3], maps, strict=True):
        raw = np.load(Path("out", row["file"]).with_suffix(".npy"), allow_pickle=False)
        assert raw.shape == (1, 8, 8) and np.allclose(raw, m.numpy())
    assert all(row["sensitivity_max"] >= 0 for row in rows)


@pytest.mark.parametrize(
    ("name", "options", "fact"),
    [
        ("gradient,prototypes", (), "prototypes gives examples"),
        ("counterfactual", ("--npy",), "need maps"),
        ("gradient", ("--measure", "map_iou"), "map_iou"),
        ("gradient", ("--measure", "insertoin"), "did you mean 'insertion'"),
        ("gradient,gradient_input", ("--set", "samples=3"), "samples"),
    ],
)
def test_what_several_interpreters_cannot_do(
    capsys: pytest.CaptureFixture[str], name: str, options: tuple[str, ...], fact: str
) -> None:
    assert main(["explain", name, *map(str, DIGITS), *options]) == 2
    captured = capsys.readouterr().err
    assert fact in captured and len(captured.strip().splitlines()) == 1
