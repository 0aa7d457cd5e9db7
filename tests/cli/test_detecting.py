"""`underfire detect`: fit, score and evaluate, on images that are kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from underfire.cli import main
from underfire.cli.detecting import Setting, read_attack
from underfire.cli.detecting_attacks import _attacked
from underfire.detectors import Guard, load
from underfire.learning import read_facts

MODEL = ("--model", "python:victims:right")
FIT = ("detect", "fit", "feature_squeezing", *MODEL, "--data", "digits:", "--n", "80", "--seed", "1",
       "--set", "squeezers=[bit_depth_2, median_2]", "--false-positive-rate", "0.1")  # fmt: skip


@pytest.mark.slow
def test_a_detector_is_fitted_used_and_evaluated(parsed, shown, capsys):
    made = parsed(*FIT, "--out", "squeezing.safetensors")
    assert (made["fitted"], made["calibrated"], made["false_positive_rate"]["n"]) == (40, 40, 40)
    assert load("squeezing.safetensors").squeezers == ("bit_depth_2", "median_2")
    assert len(json.loads(read_facts(Path("squeezing.safetensors"))["guard"])["calibration"]["seen"]) == 80
    # score
    rows = parsed("detect", "score", "squeezing.safetensors", "digits:", *MODEL, "--n", "30", "--out", "scores.parquet")
    assert len(rows) == 30 and pq.read_table("scores.parquet").num_rows == 30
    assert all(row["flagged"] == (row["score"] > made["threshold"]) and 1 / 41 <= row["p_value"] <= 1 for row in rows)
    assert all(row["p_value"] <= 0.1 for row in rows if row["flagged"])
    # evaluate, on images that were not used before
    test = ("detect", "evaluate", "squeezing.safetensors", *MODEL, "--data", "digits:", "--n", "100", "--seed", "2",
            "--attack", "{name: pgd, eps: [0.1, 0.3], steps: 3}", "--attack", "{name: corner_cases, strengths: 2}",
            "--aware", "--out", "evaluated.csv")  # fmt: skip
    found = parsed(*test)
    figures = found["detectors"]["squeezing"]
    assert found["left_out"] > 0 and found["images"] < 100 - found["left_out"] + 1
    assert list(figures["attacks"]) == ["pgd linf 0.1", "pgd linf 0.3", "corner_cases corner_case 1"]
    lowest = min(figures["attacks"], key=lambda name: figures["attacks"][name]["auroc"]["value"])
    assert figures["worst"]["attack"] == lowest
    assert figures["attacks"][lowest]["tpr_at"]["0.01"] is None  # too few clean images
    assert figures["attacks"][lowest]["tpr_at"]["0.1"]["n"] == figures["attacks"][lowest]["successful"]
    aware = [attack["evades_aware"] for attack in figures["attacks"].values()]
    assert aware[0]["n"] == aware[1]["n"] == found["images"] and aware[2] is None  # a corner case has no goal
    assert aware[1]["value"] >= figures["attacks"]["pgd linf 0.3"]["evades"]["value"]
    assert len(Path("evaluated.csv").read_text().splitlines()) == 1 + 4 * found["images"]
    printed = shown(*test, "--force")
    assert "(worst)" in printed and "worst attack: AUROC" in printed and "aware" in printed and "1/5/10" in printed
    # the images of the fit alone cannot be evaluated on
    capsys.readouterr()
    again = [*test[:7], "--n", "80", "--seed", "1", "--attack", "fgsm"]
    assert main(again) == 2 and "all 80 images" in capsys.readouterr().err
    assert main(["detect", "score", "squeezing.safetensors", "digits:", "--model", "python:victims:backwards"]) == 2
    assert "fingerprint" in capsys.readouterr().err


def test_an_attack_with_a_goal_succeeds_only_if_it_reaches_the_goal():
    setting = Setting("python:victims:right", None, 32, 0, "cpu", True, False)
    batch = setting.read("digits:", 40)
    one = _attacked(setting, read_attack("{name: fgsm, eps: 0.3, goal: '3'}"), 0.3, batch)
    predicted = setting.model.predict(one.x).argmax(1)
    assert one.counted.tolist() == (batch.y != 3).tolist()
    assert one.success.tolist() == ((predicted == 3) & (batch.y != 3)).tolist()
    assert (predicted != batch.y).sum() > one.success.sum()  # more are fooled, but not as wanted


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("fit", "feature_squeezin", *MODEL, "--data", "digits:", "--out", "a"), "feature_squeezing"),
        ((*FIT[1:], "--attack", "pgd", "--out", "a"), "no --attack"),
        ((*FIT[1:], "--out", "."), "folder"),
        ((*FIT[1:-1], "0.001", "--out", "a"), "needs 999 clean inputs, got 40"),
        (("evaluate", "a", *MODEL, "--data", "digits:", "--attack", "pg"), "pgd"),
        (("evaluate", "a", *MODEL, "--data", "digits:", "--attack", "[pgd]"), "--attack must be"),
        (("score", "a", "digits:", *MODEL, "--out", "a.txt"), ".csv or .parquet"),
        (("score", "nothing", "digits:", *MODEL), "nothing"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, fact, capsys):
    assert main(["detect", *arguments]) == 2
    error = capsys.readouterr().err
    assert fact in error and len(error.strip().splitlines()) == 1
    assert not Path("a").exists()


@pytest.mark.slow
def test_a_file_that_does_not_say_what_it_was_calibrated_on_is_refused(shown, capsys):
    shown(*FIT, "--out", "full", "--quiet")
    from underfire import models

    guard = Guard.load("full", models.load("python:victims:right"))
    guard.calibration = None
    guard.save("bare")
    assert main(["detect", "score", "bare", "digits:", *MODEL]) == 2
    assert "calibrated on" in capsys.readouterr().err
