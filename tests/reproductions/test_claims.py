"""Every claim on ADV² gets its verdict from the results of the experiments, with figures, intervals and reasons."""

import json

import pytest

from underfire import reproductions
from underfire.errors import DataError
from underfire.reproductions.adv2 import comparisons
from underfire.reproductions.adv2.claim_list import CLAIMS
from underfire.reproductions.adv2.system import DIGITS
from underfire.reproductions.registry import Setting


def figure(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + spread, "n": 40}


def compared(success=1.0, confidence=0.99, l1=0.1, iou=0.9, plain="PGD", spread=0.01):
    """The results of one network with one interpreter; the plain attack has a map L1 of 1 and an IoU of 0.2."""
    attack = "ADV² on CAM"
    pair = {"map_l1": {plain: figure(1.0), attack: figure(l1), "difference": figure(l1 - 1, spread)}}
    pair["map_iou"] = {plain: figure(0.2), attack: figure(iou), "difference": figure(iou - 0.2)}
    outcome = {"success": figure(success), "confidence": figure(confidence)}
    return {"network": {plain: {"success": figure(1.0)}, attack: outcome, "CAM": pair}}


def failing(compare, results):
    return {one.what for one in compare(results) if not one.holds}


@pytest.mark.parametrize(
    ("compare", "results", "failed"),
    [
        (comparisons.deceives, compared(0.97, 0.99), set()),
        (comparisons.deceives, compared(0.97, 0.90), {"confidence"}),
        (comparisons.deceives, compared(1.0, float("nan")), {"confidence"}),
        (comparisons.misleads, compared(l1=0.39, iou=0.51), set()),
        (comparisons.misleads, compared(l1=0.41), {"map L1"}),
        (comparisons.misleads, compared(l1=0.39, spread=0.7), {"map L1"}),  # the difference is not significant
        (comparisons.misleads, compared(iou=0.4), {"IoU"}),
        (comparisons.misleads, compared(iou=0.27), {"IoU", "IoU over that of PGD"}),
        (comparisons.as_on_pixels, compared(0.96, l1=0.9, plain="StAdv"), set()),
        (comparisons.as_on_pixels, compared(0.94, l1=0.9, plain="StAdv"), {"success"}),
        (comparisons.as_on_pixels, compared(0.96, l1=1.1, plain="StAdv"), {"map L1"}),
    ],
)
def test_the_main_claims(compare, results, failed):
    assert failing(compare, results) == failed


def test_what_detectors_say():
    def found(*rates, success=1.0, l1=0.1):
        names = ("PGD", "ADV² on CAM", "ADV² on CAM, adaptive, as published")
        shift = compared(l1=l1)["network"]["CAM"]["map_l1"]
        rows = {}
        for name, value in zip(names, rates, strict=True):
            maps = {"map_l1": {"PGD": shift["PGD"], name: shift["ADV² on CAM"], "difference": shift["difference"]}}
            detection = {m: figure(value) for m in ("median_2", "median_3")}
            rows[name] = {"detection": detection, "success": figure(success), "maps": maps}
        return {"n": rows}

    assert failing(comparisons.as_detectable, found(0.9, 0.885, 0.1)) == set()
    assert failing(comparisons.as_detectable, found(0.9, 0.87, 0.1)) == {"detection rate"}
    assert failing(comparisons.evades, found(0.9, 0.8, 0.1)) == set()
    assert failing(comparisons.evades, found(0.9, 0.8, 0.7)) == {"detection rate"}
    assert failing(comparisons.evades, found(0.9, 0.8, 0.1, success=0.5, l1=0.6)) == {"success", "map L1"}
    flagged = {"n": {"ADV² on all": {"detection": {"stated": 0.05, "rate": figure(0.07)}}}}
    assert failing(comparisons.is_noticed, flagged) == set()
    flagged["n"]["ADV² on all"]["detection"]["rate"] = figure(0.05)
    assert failing(comparisons.is_noticed, flagged) == {"detection rate"}


def test_transfer_and_targets():
    def cell(value):
        return {"map_l1": figure(value)}

    matrix = {
        "PGD": {"GRAD": cell(1.0), "CAM": cell(2.0), "Grad-CAM": cell(2.0)},
        "ADV² on GRAD": {"GRAD": cell(0.2), "CAM": cell(1.8), "Grad-CAM": cell(1.8)},
        "ADV² on CAM": {"GRAD": cell(0.5), "CAM": cell(0.2), "Grad-CAM": cell(0.2)},
        "ADV² on Grad-CAM": {"GRAD": cell(0.5), "CAM": cell(0.2), "Grad-CAM": cell(0.2)},
    }
    found = {one.where: one.holds for one in comparisons.transfers_little({"n": matrix})}
    assert found == {"GRAD seen by CAM, n": True, "CAM seen by GRAD, n": False}  # 1.8 > 1.1, and 0.5 < 0.6
    near = {"success": figure(1.0), "l1": {"ADV²": figure(0.37), "PGD": figure(0.4)}}
    assert failing(comparisons.reaches_targets, {"n": {"CAM": near}}) == set()
    assert failing(comparisons.reaches_targets, {"n": {"CAM": {**near, "success": figure(0.5)}}}) == {"success"}
    near["l1"]["ADV²"] = figure(0.39)  # the intervals overlap
    assert failing(comparisons.reaches_targets, {"n": {"CAM": near}}) == {"L1 to the target"}


def test_the_gap_its_trainings_and_the_medical_case():
    network = compared(iou=0.6)["network"]
    network |= {
        "ADV² on GRAD": network["ADV² on CAM"],
        "GRAD": json.loads(json.dumps(network["CAM"]).replace("CAM", "GRAD")),
    }
    assert failing(comparisons.grad_resists, {"n": network}) == set()
    network["GRAD"]["map_iou"]["ADV² on GRAD"] = figure(0.7)
    assert failing(comparisons.grad_resists, {"n": network}) == {"IoU of GRAD"}
    gaps = {"mnist_normal": {"CAM": {"value": figure(0.6)}}, "mnist_adv": {"CAM": {"value": figure(0.1)}}}
    assert [one.holds for one in comparisons.gap_is_open(gaps)] == [True]
    talk = {"benign, RTS and RTS^A": 0.03, "ADV², RTS": 0.01, "ADV², RTS^A": 0.10}
    results = {name: {"l1": figure(value, 0.005)} for name, value in talk.items()}
    results["normal noise, 3% wrong, RTS^A"] = {"difference": figure(0.05)}
    assert failing(comparisons.distilled, results) == set()
    results["normal noise, 3% wrong, RTS^A"] = {"difference": figure(0.0)}
    results["ADV², RTS^A"] = {"l1": figure(0.015, 0.005)}
    assert failing(comparisons.distilled, results) == {"map L1 under ADV²", "map L1 under noise, RTS^A less RTS"}
    skin = {"head": {}, **compared()["network"]}
    skin["CAM"]["mass_inside"] = {"clean": figure(0.5), "PGD": figure(0.3), "ADV² on CAM": figure(0.45)}
    assert failing(comparisons.stays_on_lesion, skin) == set()
    skin["CAM"]["mass_inside"]["ADV² on CAM"] = figure(0.75)
    assert failing(comparisons.stays_on_lesion, skin) == {"mass on the lesion"}


def test_the_page_reads_the_experiments_beside_it(tmp_path, monkeypatch):
    monkeypatch.delenv("UNDERFIRE_DATA", raising=False)

    def write(name, scale, results):
        (tmp_path / f"{name}.json").write_text(json.dumps({"scale": scale, "results": results}))

    gradient = json.loads(json.dumps(compared()).replace("CAM", "GRAD"))["network"]
    write("adv2-digits", "default", {"network": compared()["network"] | gradient})
    write("adv2-cifar10", "default", {"network": compared(l1=0.5)["network"] | gradient})
    write("adv2-imagenet", "quick", compared(0.1, 0.1, 2.0, 0.1))
    page = reproductions.run("adv2", out=tmp_path).read_text()  # without a folder of data
    rows = {row[0]: row for row in (line.strip("| ").split(" | ") for line in page.splitlines() if line[:2] == "| ")}
    head = rows["claim"]
    at = {name: dict(zip(head, row, strict=False)) for name, row in rows.items()}
    assert at["Observation 1"]["verdict"] == "holds"
    assert at["Observation 2"]["verdict"] == "holds in part"
    assert at["Observation 2"]["comparisons that hold"] == "11 of 12"
    section = page.partition("\n## Observation 2\n")[2].partition("\n## ")[0]
    assert "not: map L1 of CAM, network" in section
    (line,) = [line for line in section.splitlines() if line.startswith("| adv2-cifar10 | map L1 |")]
    assert "| 0.50 " in line and "[-0.510, -0.490]" in line and line.endswith("| **no** |")
    assert at["Observation 3"]["verdict"] == "not measured"
    assert {claim.name for claim in CLAIMS} < set(rows)


def test_only_experiments_on_real_data_ask_for_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("UNDERFIRE_DATA", raising=False)
    with pytest.raises(DataError, match="adv2-cifar10 needs .* --data"):
        reproductions.run("adv2-cifar10", out=tmp_path)
    assert DIGITS.spec(Setting(None, tmp_path, tmp_path))["data"]["uri"] == DIGITS.data


def test_results_of_another_version_are_one_line(tmp_path):
    (tmp_path / "adv2-digits.json").write_text('{"scale": "default", "results": {"n": {"ADV² on CAM": 1}}}')
    with pytest.raises(DataError, match="adv2-digits"):
        reproductions.run("adv2", out=tmp_path)
