"""The experiments on trained robustness: small runs leave their pages, and what they decide is decided rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from underfire import reproductions
from underfire.reproductions.hardening import trades_mnist


def test_more_budget_is_compared_on_the_same_images() -> None:
    sizes = trades_mnist.Sizes(whole=200, images=100)
    place = np.arange(200)
    found = {"clean": place < 199, "PGD-40": place < 95, "PGD-1000": place[:100] < 80, "AutoAttack": place[:100] >= 10}
    page = trades_mnist.outcome(sizes, {name: hits.astype(float) for name, hits in found.items()}, {})
    cells = {row[0]: row[1:] for row in page.rows}
    assert cells["PGD-40"][0].startswith("95.0 [") and cells["PGD-40"][1].startswith("47.5 [")
    assert cells["PGD-40"][2] == "96.07" and cells["AutoAttack"][1:] == ["–", "–"]
    assert cells["all three"][0].startswith("70.0 [")
    verdicts = {claim["claim"].split(" changes")[0]: claim for claim in page.results["claims"]}
    assert verdicts["PGD-1000"]["verdict"] == "holds" and "+15.0" in verdicts["PGD-1000"]["figures"]


@pytest.mark.slow
def test_a_small_run_of_trades_leaves_a_page(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trades_mnist.SIZES, "quick", trades_mnist.Sizes(8, 2, 3, 1, 2))
    for _ in range(2):
        page = reproductions.run("trades-mnist", data_root=data_root, out=tmp_path, work=tmp_path / "work", quick=True)
    text = page.read_text()
    assert "| PGD-3 | " in text and "| AutoAttack | " in text and "| 96.07 |" in text and str(data_root) not in text
    # a second run reads what the first has finished: a part for each attack
    assert len(list((tmp_path / "work").glob("trades-mnist-*/*"))) == 4
