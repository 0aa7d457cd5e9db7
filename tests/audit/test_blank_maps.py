"""Maps that show nothing are said in one sentence: in the summary, on the page and in the JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import underfire as uf
from underfire.audit.blank_maps import BlankMaps
from underfire.audit.ledger import Ledger
from underfire.audit.summary import findings
from underfire.cli.summary import print_summary
from underfire.report import render, to_json


def constant(model: uf.Classifier, x: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(x)


def broken(model: uf.Classifier, x: Tensor, y: Tensor) -> Tensor:
    """NaN for all images but those of class 0, which get a constant map."""
    return torch.where((y == 0)[:, None, None, None], torch.ones_like(x), torch.full_like(x, torch.nan))


def sound(model: uf.Classifier, x: Tensor, y: Tensor) -> Tensor:
    return x


@pytest.mark.slow
def test_blank_maps_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = uf.Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model.predict(x).argmax(1)
    folder = tmp_path / "run"
    uf.audit(model, (x, y), attacks=["fgsm"], interpreters=[constant, broken, sound], masking=False, out=folder)
    ledger = Ledger(folder)
    found = findings(ledger)
    by_name = {entry.interpreter: entry for entry in found.blank}
    assert by_name.keys() == {"constant", "broken"}
    assert by_name["constant"] == BlankMaps("constant", 6, 6, 0)
    assert by_name["broken"].constant + by_name["broken"].not_finite == 6 and by_name["broken"].not_finite > 0
    said = "The constant map of 6 of 6 images shows nothing"
    print_summary(found)
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in render(ledger)
    content = to_json(ledger)
    assert said in content["verdict"] and {"broken", "constant"} == {entry["interpreter"] for entry in content["blank"]}
