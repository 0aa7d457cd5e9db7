"""The tables of the page that says which detector to use when: their figures are those of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from underfire.reproductions.detection.guide import aware_table, unaware_table


def area(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 50}


def write(folder: Path, name: str, results: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"results": results}))
    (folder / f"{name}.md").touch()


def test_attackers_who_know_the_detector_come_first(tmp_path: Path) -> None:
    assert "not measured yet" in aware_table(tmp_path)
    write(tmp_path, "detectors-adaptive-cifar10", {"LID": {"evades, aware": area(0.9), "evades, unaware": area(0.2)}})
    head, _, row = aware_table(tmp_path).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "LID" and cells[1] == cells[3] == "not measured yet"
    assert cells[2] == "0.900 [0.800, 1.000] (n=50)" and cells[4].startswith("0.200")
    assert head.index("CIFAR-10](reproductions/detectors-adaptive-cifar10.md), knows it") < head.index("does not")


def test_the_worst_attack_stands_for_those_that_a_detector_learned_from(tmp_path: Path) -> None:
    own = {"FGSM": {"FGSM": area(0.8), "C&W": area(0.1)}, "C&W": {"FGSM": area(0.3), "C&W": area(0.7)}}
    own |= {"not FGSM": {"FGSM": area(0.6), "C&W": area(0.9)}, "not C&W": {"FGSM": area(0.9), "C&W": area(0.65)}}
    write(tmp_path, "ml-loo-cifar10", {"areas": dict.fromkeys(("ML-LOO", "LID", "Mahalanobis", "KD+BU"), own)})
    rows = {row.split("|")[1].strip(): row.split("|")[2:-1] for row in unaware_table(tmp_path).splitlines()}
    cells = [cell.strip() for cell in rows["LID"]]
    assert cells[3].startswith("0.700") and cells[4].startswith("0.600") and cells[0] == "–"
    assert rows["Deep Validation"][0].strip() == "not measured yet"
