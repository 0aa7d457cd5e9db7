"""Every attack of the catalogue runs from a spec, at settings that make it short, and what it returns is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

import underfire as uf
from underfire.audit.ledger import Ledger
from underfire.audit.reading import attack_results, largest
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.report import words

pytestmark = pytest.mark.slow
CARDS = [card for card in uf.cards("attack") if not card.facts.models]


def entry(card: uf.Card, norm: str) -> dict[str, object]:
    """The attack as a spec would have it."""
    short = {name: 1 for name in card.options if name.endswith("steps")} | card.facts.quick
    aim = {"interpreter": "cam"} if "interpreter" in card.options else {}
    return {"name": card.name, "norm": norm, **short, **aim}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """An audit with every attack in every norm, of four images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spec = {
        "model": "python:audit_networks:pooling",
        "data": {"uri": "digits:", "n": 4, "seed": 0},
        "attacks": [entry(card, norm) for card in CARDS for norm in card.facts.norms],
        "masking": False,
        "gallery": 1,
    }
    yield run(parse_spec(spec), tmp_path_factory.mktemp("every") / "run")
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "norm"), [(card.name, norm) for card in CARDS for norm in card.facts.norms])
def test_it_ran_and_was_measured(ledger: Ledger, name: str, norm: str) -> None:
    rows = ledger.sql(f"SELECT * FROM rows WHERE attack = '{name}' AND norm = '{norm}'")
    assert len(rows) == 4
    assert all(row["in_box"] and row["within_eps"] for row in rows)
    assert all(row["forwards"] > 0 for row in rows)


def test_a_report_is_written_of_all_of_them(ledger: Ledger) -> None:
    from underfire.report.page import render

    page = render(ledger)
    results = largest(attack_results(ledger))
    assert len(results) == sum(len(card.facts.norms) for card in CARDS)
    for result in results:
        # the row of the attack begins with its label and its size, and has its success rate in the third cell
        row = re.search(rf'<th[^>]*>{re.escape(result.label)}<span class="ci">.*?</tr>', page, re.DOTALL)
        assert row, result.label
        figure = words.percent(result.success.value) if result.success.n else ">none<"
        assert figure in row[0], result.label
    assert "largest displacement, in pixels" in page
