"""Every interpreter that gives maps runs from a spec, at settings that make it short, and its maps are measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import underfire as uf
from underfire.audit.ledger import Ledger
from underfire.audit.map_shifts import map_shifts
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.errors import SpecError

pytestmark = pytest.mark.slow
CARDS = list(uf.cards("interpreter"))
MAPS = [card.name for card in CARDS if card.facts.gives == "map"]
SHORT = {"steps": 2, "samples": 8, "superpixels": "grid"}
TRAINED = [name for name in MAPS if uf.find("interpreter", name).fitted]
TRANSFORMERS = [name for name in MAPS if uf.find("interpreter", name).facts.models == "transformer"]
# What must be trained has weights for the embedded network; the others explain smaller ones.
RUNS = [
    ("zoo:cluttered_digits", "cluttered-digits:test", TRAINED),
    ("python:audit_networks:pooling", "digits:", [n for n in MAPS if n not in (*TRAINED, *TRANSFORMERS)]),
    ("python:audit_networks:tokens", "digits:", TRANSFORMERS),
]


def entry(name: str) -> dict[str, object]:
    """The interpreter as a spec would have it."""
    options = uf.find("interpreter", name).options
    return {"name": name, **{key: value for key, value in SHORT.items() if key in options}}


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[list[str], Ledger]]]:
    """Audits of one attack, of four images, which together show every interpreter; each with its interpreters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = []
    for model, data, names in RUNS:
        spec = {
            "model": model,
            "data": {"uri": data, "n": 4, "seed": 0},
            "attacks": [{"name": "fgsm", "eps": 0.03}],
            "interpreters": [entry(name) for name in names],
            "masking": False,
            "gallery": 1,
        }
        made.append((names, run(parse_spec(spec), tmp_path_factory.mktemp("every") / "run")))
    yield made
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", MAPS)
def test_it_ran_and_was_measured(ledgers: list[tuple[list[str], Ledger]], name: str) -> None:
    (ledger,) = (ledger for names, ledger in ledgers if name in names)
    rows = ledger.sql(f"SELECT * FROM maps WHERE interpreter = '{name}'")
    assert len(rows) == 4
    assert all(0 <= row["map_l1"] <= 1 for row in rows)


def test_a_report_is_written_of_all_of_them(ledgers: list[tuple[list[str], Ledger]]) -> None:
    from underfire.report.page import render

    for names, ledger in ledgers:
        page = render(ledger)
        shifts = {shift.interpreter: shift for shift in map_shifts(ledger)}
        assert set(shifts) == set(names)
        for name, shift in shifts.items():
            # the panel of the interpreter has the mean distance of its maps
            panel = page.partition(f">{name}</a></h3>")[2].partition("<h3")[0]
            assert "unknown" in panel if shift.l1.value != shift.l1.value else f"{shift.l1.value:.3f}" in panel, name


@pytest.mark.parametrize("name", [card.name for card in CARDS if card.name not in MAPS])
def test_what_gives_no_map_is_refused(name: str) -> None:
    message = f"'interpreters.0..name': {name} gives .*, and only maps can be used here"
    with pytest.raises(SpecError, match=message):
        parse_spec({"model": "none", "data": "none", "attacks": ["fgsm"], "interpreters": [name]})
