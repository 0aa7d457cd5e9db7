"""Every claim on ADV² gets its verdict from the results of the experiments."""

import json

import pytest

from underfire import reproductions
from underfire.errors import DataError
from underfire.reproductions.adv2 import claims


def compared(success, confidence, l1, iou):
    """The results of one network with one interpreter; PGD has a map L1 of 1 and an IoU of 0.2."""
    attack = "ADV² on CAM"
    pair = {"map_l1": {"PGD": {"value": 1.0}, attack: {"value": l1}, "difference": {"value": l1 - 1}}}
    pair["map_iou"] = {"PGD": {"value": 0.2}, attack: {"value": iou}}
    outcome = {"success": {"value": success}, "confidence": {"value": confidence}}
    return {"network": {"PGD": outcome, attack: outcome, "CAM": pair}}


@pytest.mark.parametrize(
    ("judge", "results", "holds"),
    [
        (claims._deceives, compared(0.97, 0.99, 0.1, 0.9), True),
        (claims._deceives, compared(0.97, 0.90, 0.1, 0.9), False),
        (claims._misleads, compared(1.0, 1.0, 0.39, 0.51), True),
        (claims._misleads, compared(1.0, 1.0, 0.41, 0.9), False),
        (claims._misleads, compared(1.0, 1.0, 0.1, 0.4), False),
    ],
)
def test_the_main_claims(judge, results, holds):
    assert judge(results)[0] is holds


def test_what_detectors_say():
    def found(*rates):
        names = ("PGD", "ADV² on CAM", "ADV² on CAM, adaptive, as published")
        medians = ("median_2", "median_3")
        rows = {k: {m: {"value": v} for m in medians} for k, v in zip(names, rates, strict=True)}
        return {"n": {k: {"detection": row} for k, row in rows.items()}}

    assert claims._as_detectable(found(0.9, 0.885, 0.1))[0]
    assert not claims._as_detectable(found(0.9, 0.87, 0.1))[0]
    assert claims._evades(found(0.9, 0.8, 0.1))[0]
    assert not claims._evades(found(0.9, 0.8, 0.7))[0]


def test_transfer_and_targets():
    def cell(value):
        return {"map_l1": {"value": value}}

    matrix = {
        "PGD": {"GRAD": cell(1.0), "CAM": cell(2.0)},
        "ADV² on GRAD": {"GRAD": cell(0.2), "CAM": cell(1.8)},
        "ADV² on CAM": {"GRAD": cell(0.9), "CAM": cell(0.2)},
    }
    holds, figures = claims._transfers_little({"n": matrix})
    assert holds
    assert "0.15" in figures and "0.90" in figures
    near = {"success": {"value": 1.0}, "l1": {"ADV²": {"value": 0.1}, "PGD": {"value": 0.4}}}
    assert claims._towards({"n": {"CAM": near}})[0]
    assert not claims._towards({"n": {"CAM": {**near, "success": {"value": 0.5}}}})[0]


def test_the_page_reads_the_experiments_beside_it(tmp_path):
    def write(name, scale, results):
        (tmp_path / f"{name}.json").write_text(json.dumps({"scale": scale, "results": results}))

    write("adv2-digits", "default", compared(1.0, 1.0, 0.1, 0.9))
    write("adv2-cifar10", "default", compared(1.0, 1.0, 0.5, 0.9))
    write("adv2-imagenet", "quick", compared(0.1, 0.1, 2.0, 0.1))
    page = reproductions.run("adv2", data_root=tmp_path, out=tmp_path).read_text()
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    verdicts = {row[0]: row[-1] for row in cells}
    assert verdicts["Observation 1"] == "holds"
    assert verdicts["Observation 2"] == "holds in part"
    assert verdicts["Observation 3"] == "not measured"


def test_results_of_another_version_are_one_line(tmp_path):
    (tmp_path / "adv2-digits.json").write_text('{"scale": "default", "results": {"n": {"ADV² on CAM": 1}}}')
    with pytest.raises(DataError, match="adv2-digits"):
        reproductions.run("adv2", data_root=tmp_path, out=tmp_path)
