"""Attacks crafted once on each source and shown to every victim: plan, sample, figures, and what the page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.audit.transfer_specs import BITS, LINEAR, NARROW, OTHERS, PLAIN
from underfire import data, report
from underfire.attacks import fgsm
from underfire.audit import sampling
from underfire.audit.gates import sound
from underfire.audit.ledger import Ledger
from underfire.audit.opening import weights_of
from underfire.audit.plan import plan
from underfire.audit.run import Work, run
from underfire.audit.sizes import percent
from underfire.audit.spec import parse_spec
from underfire.audit.store import Store
from underfire.audit.summary import findings
from underfire.audit.target import open_target
from underfire.catalog import find
from underfire.cli.summary import print_summary
from underfire.defenses import defend, through, train_hgd
from underfire.errors import DataError
from underfire.models import load
from underfire.report.export import to_json
from underfire.report.transfers import table


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return run(parse_spec(PLAIN | OTHERS), tmp_path_factory.mktemp("transfer"))


def keys(spec: dict[str, Any], *kinds: str) -> set[str]:
    return {cell.key for cell in plan(parse_spec(spec)) if not kinds or cell.kind in kinds}


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_victims_change_no_cell_of_a_plain_audit_and_a_new_victim_no_craft() -> None:
    assert keys(PLAIN) < keys(PLAIN | OTHERS)
    fewer = PLAIN | OTHERS | {"victims": [LINEAR, BITS]}
    assert keys(fewer, "craft", "surrogate", "transfer", "answer") < keys(PLAIN | OTHERS)


def test_each_attack_is_crafted_once_for_each_source_and_through_each_defence() -> None:
    cells = [cell for cell in plan(parse_spec(PLAIN | OTHERS | {"shard_size": 40})) if cell.kind != "answer"]
    crafts = [c.title for c in cells if c.kind == "surrogate"]
    assert crafts == [
        f"FGSM at eps {eps} {where}"
        for where in ("on narrow", "through bits", "through bits without BPDA", "through R&P")
        for eps in ("0.1", "0.2")
    ]
    assert len({c.key for c in cells if c.kind == "craft"}) == 2
    assert len({c.key for c in cells if c.kind == "transfer"}) == 2 * (2 * 4 + 3)


# --- the figures ------------------------------------------------------------------------------------------------------


def test_a_model_in_both_roles_is_evaluated_once() -> None:
    cells = [cell for cell in plan(parse_spec(PLAIN | OTHERS)) if cell.kind == "answer"]
    by_role = {role: {c.key for c in cells if c.about["role"] == role} for role in ("source", "victim")}
    assert by_role["source"] < by_role["victim"]


def test_an_attack_without_gradients_needs_no_comparison_without_bpda() -> None:
    square = {"name": "square", "queries": 2, "eps": [0.1]}
    spec = PLAIN | OTHERS | {"attacks": [*PLAIN["attacks"], square]}
    blind = [cell for cell in plan(parse_spec(spec)) if cell.about.get("bpda") is False]
    assert {cell.about["attack"] for cell in blind} == {"fgsm"}


def test_the_own_model_is_attacked_where_it_is_a_source_or_something_else_reads_its_attacks() -> None:
    others = PLAIN | {"sources": [NARROW], "victims": [LINEAR]}
    assert keys(others, "surrogate") and not keys(others, "craft")
    assert keys(others | {"masking": True}, "craft") and keys(others | {"interpreters": ["gradient"]}, "craft")


def test_an_audit_of_further_sources_alone_has_a_page(tmp_path: Path) -> None:
    ledger = run(parse_spec(PLAIN | {"sources": [NARROW], "victims": [LINEAR]}), tmp_path)
    page, found = report.render(ledger), findings(ledger)
    assert found.transfer is not None and found.transfer.best is not None
    share = percent(found.transfer.best.success.value)
    assert f"Transferred attacks fool up to {share} of the images</a></h1>" in page
    assert sound(found.standing)  # the exit code is 0
    assert 'href="#transfer"' in page and 'href="#accuracy"' not in page and "Not tested" not in page


def test_an_unfinished_run_has_a_page(tmp_path: Path) -> None:
    done = run(parse_spec(PLAIN | {"sources": [NARROW], "victims": [LINEAR, BITS]}), tmp_path)
    store = Store(done.path)
    shown = sorted(cell.key for cell in plan(done.spec) if cell.kind == "transfer")
    for key in shown[::3]:
        store.delete(key)
    ledger = Ledger(done.path)
    assert ledger.missing and "So far, transferred attacks fool up to" in report.render(ledger)
    print_summary(findings(ledger))


def test_rates_are_those_of_a_plain_loop(ledger: Ledger) -> None:
    found = findings(ledger).transfer
    assert found is not None
    data = open_target(parse_spec(PLAIN)).data[:]
    models = {"linear": load(LINEAR), "narrow": load(NARROW)}
    counted = {row["id"] for row in ledger.sql("SELECT id FROM sample WHERE counted")}
    kept = torch.tensor([name in counted for name in data.ids])
    assert found.sample.n == int(kept.sum()) and found.sample.of == 40
    for model in models.values():
        assert (model(data.x[kept]).argmax(1) == data.y[kept]).all()
    rates = {(r.source, r.victim, r.eps): r.success.value for r in found.results if r.victim in models}
    for source, model in models.items():
        for eps in (0.1, 0.2):
            x_adv = fgsm(model, data.x[kept], data.y[kept], eps=eps)
            for victim, judge in models.items():
                fooled = (judge(x_adv).argmax(1) != data.y[kept]).double().mean()
                assert rates[source, victim, eps] == pytest.approx(fooled.item())


def test_a_victim_with_the_weights_of_the_source_is_white_box_and_in_no_mean(ledger: Ledger) -> None:
    found = findings(ledger).transfer
    assert found is not None
    ways = {(r.source, r.victim): r.way for r in found.results if r.way != "through"}
    assert ways == {
        ("linear", "linear"): "white-box",
        ("linear", "narrow"): "transfer",
        ("linear", "bits"): "around",
        ("linear", "R&P"): "around",
        ("narrow", "linear"): "transfer",
        ("narrow", "narrow"): "white-box",
        ("narrow", "bits"): "transfer",
        ("narrow", "R&P"): "transfer",
    }
    mean = next(m for m in found.means if (m.source, m.eps) == ("linear", 0.2))
    others = [r.success.value for r in found.results if (r.source, r.eps) == ("linear", 0.2) and r.way != "white-box"]
    assert mean.victims == 3
    assert mean.success.value == pytest.approx(np.mean(others))


def test_a_random_victim_is_asked_several_times_after_the_attack(ledger: Ledger) -> None:
    rows = ledger.sql("SELECT DISTINCT victim, draws FROM transfer ORDER BY victim")
    assert {row["victim"]: row["draws"] for row in rows} == {"R&P": 3, "bits": 1, "linear": 1, "narrow": 1}
    shares = {row["fooled"] for row in ledger.sql("SELECT DISTINCT fooled FROM transfer WHERE victim = 'R&P'")}
    assert shares <= {0.0, 1 / 3, 2 / 3, 1.0} and len(shares) > 2


def test_the_hash_of_a_defended_model_knows_its_defence_and_not_its_draws() -> None:
    model, pad = load(LINEAR), find("defense", "resize_and_pad").function
    made = pad(model, keep_size=True)
    before = weights_of(made)
    assert all(
        weights_of(defend(model, [name])) == weights_of(defend(model, [name]))
        for name in ("jpeg", "feature_distillation")
    )
    made.redraw(3).predict(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert weights_of(made) == before == weights_of(pad(load(LINEAR), keep_size=True))
    assert before not in (weights_of(model), weights_of(pad(model, keep_size=True, flip=True)))


def test_a_worker_that_opens_the_spec_itself_writes_the_same(ledger: Ledger, tmp_path: Path) -> None:
    spec = ledger.spec
    chosen = [cell for cell in plan(spec) if cell.about.get("victim") == "R&P"][-1]
    store, before = Store(ledger.path), Store(ledger.path).get(chosen.key, "table.parquet")
    store.delete(chosen.key)
    Work(spec, store)(chosen)
    assert store.get(chosen.key, "table.parquet") == before


@pytest.mark.slow
def test_a_victim_behind_a_trained_defence_is_that_of_its_weights(tmp_path: Path) -> None:
    model, images = load(LINEAR), data.load("digits:train", n=60)
    file, other = str(tmp_path / "hgd.safetensors"), str(tmp_path / "other.safetensors")
    for path, seed in ((file, 0), (other, 1)):
        train_hgd(model, images, epochs=1, width=1, generator=torch.Generator().manual_seed(seed)).save(path)
    spec = PLAIN | {"victims": [{"defenses": [{"name": "hgd", "weights": file}], "label": "HGD"}]}
    found = run(parse_spec(spec), tmp_path / "run")
    # the attack through the defence, as a plain loop
    batch, made = data.load("digits:", n=40, seed=1)[:], defend(model, {"name": "hgd", "weights": file})
    x_adv = fgsm(through(made), batch.x, batch.y, eps=0.2)
    fooled = (made(x_adv).argmax(1) != batch.y).double()
    rows = found.sql("SELECT id, fooled FROM transfer WHERE way = 'through' AND eps = 0.2")
    assert {row["id"]: row["fooled"] for row in rows} == dict(zip(batch.ids, fooled.tolist(), strict=True))
    # other weights under the same name are another victim
    before = keys(spec, "answer", "transfer")
    Path(file).write_bytes(Path(other).read_bytes())
    assert len(before & keys(spec, "answer", "transfer")) == len(keys(spec, "answer")) // 2  # the source


# --- the sample -------------------------------------------------------------------------------------------------------


def drawn(folder: Path, **changes: Any) -> Ledger:
    spec = PLAIN | {"data": {"uri": "digits:"}, "victims": [LINEAR, NARROW], "sample": 20, **changes}
    return run(parse_spec(spec), folder)


def test_a_sample_is_balanced_kept_by_its_hash_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(tmp_path)
    sample = first.spec.sample
    counts = {row["y"]: row["n"] for row in first.sql("SELECT y, count(*) AS n FROM sample WHERE counted GROUP BY y")}
    assert counts == dict.fromkeys(range(10), 2)
    assert sample is not None and sample.hash == first.sql("SELECT DISTINCT hash FROM sample")[0]["hash"]
    assert sample.available >= 20
    assert f"{sample.available} of {sample.looked}" in first.environment["notes"][-1]

    # neither the same request nor another one with the hash draws again
    monkeypatch.setattr(sampling, "draw", lambda target: pytest.fail("drawn again"))
    assert drawn(tmp_path).spec.sample == sample
    assert drawn(tmp_path, sources=[NARROW]).spec.sample == sample  # the models are the same
    more = drawn(tmp_path, victims=[LINEAR, NARROW, BITS], sample={"n": 20, "hash": sample.hash})
    assert {c["key"] for c in first.cells if c["kind"] == "craft"} <= {c["key"] for c in more.cells}
    assert len(more.sql("SELECT id FROM sample")) == 20


def test_a_sample_of_another_hash_or_of_too_many_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hash"):
        drawn(tmp_path, sample={"n": 20, "hash": "0123"})
    with pytest.raises(DataError, match="narrow"):
        drawn(tmp_path, data={"uri": "digits:", "n": 30}, sample=30)


def test_classes_give_their_images_in_turn() -> None:
    assert sampling.balanced({0: [5, 1, 7, 8], 1: [2], 2: [9, 4]}, 6) == [1, 2, 4, 5, 7, 9]


# --- the page and the files -------------------------------------------------------------------------------------------


def test_the_page_marks_the_diagonal_and_says_how_often_victims_are_asked(ledger: Ledger) -> None:
    page = report.render(ledger)
    shown = table(findings(ledger).transfer)  # type: ignore[arg-type]
    marked = sum(bool(cell.mark) for row in shown.rows for cell in row.cells)
    assert page.count('own">') == marked == 4
    assert "after the attack, 3 times, on fresh draws" in page
    assert "fools most" in page[: page.index("<nav")]
    assert set(shown.victims) == {"linear", "narrow", "R&P", "bits"}


def test_the_command_line_prints_the_matrix(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(findings(ledger))
    said = capsys.readouterr().out
    assert "*" in said and "R&P" in said and "through it" in " ".join(said.split())


def test_a_narrow_terminal_numbers_the_victims(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underfire.cli.summary.OUT", Console(width=44))
    print_summary(findings(ledger))
    said = capsys.readouterr().out
    assert "Victims: (1) " in said and "(4)" in said


def test_programs_get_the_matrix_and_the_spec_names_the_sample_by_its_hash(ledger: Ledger) -> None:
    content = json.loads(json.dumps(to_json(ledger)))["transfer"]
    assert {row["way"] for row in content["results"]} == {"white-box", "transfer", "around", "through"}
    assert len(content["defenses"]) == 2
    assert "chosen" not in report.facts.spec_yaml(ledger.spec)
