"""`audit`, `report`, `list`, `reproduce`: what they print and which files they leave."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from underfire.audit.ledger import Ledger
from underfire.catalog import KINDS, cards
from underfire.cli import main
from underfire.cli.progress import StagedBar

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

SPEC: dict[str, Any] = {
    "model": "python:victims:right",
    "data": {"uri": "digits:", "n": 30},
    "attacks": [{"name": "pgd", "eps": [0.05, 1.0], "steps": 5}],
    "interpreters": ["gradient_input"],
    "masking": False,
    "gallery": 1,
}
Shown = Callable[..., str]
Parsed = Callable[..., Any]


@pytest.fixture
def spec() -> Path:
    Path("mine.yaml").write_text(yaml.safe_dump(SPEC))
    return Path("mine.yaml")


@pytest.mark.slow
def test_an_audit_writes_its_report_and_a_summary_of_one_screen(shown: Shown, spec: Path) -> None:
    text = shown("audit", spec)
    assert Path("runs/mine/report.html").read_text().startswith("<!")
    assert "Report: runs/mine/report.html" in text
    assert "pgd linf" in text and "0.0 % [0.0, 11.6]" in text  # nothing of 30 is left at eps 1: 1 - 0.025^(1/30)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_the_json_is_alone_on_stdout(parsed: Parsed, spec: Path) -> None:
    first = parsed("audit", spec, "--out", "run", "--seed", 3)
    assert Ledger("run").spec.seeds == [3]
    assert parsed("report", "run") == first
    assert parsed("audit", spec, "--out", "run", "--seed", 3)["spec"] == first["spec"]


@pytest.mark.slow
def test_a_report_in_every_form(shown: Shown, spec: Path) -> None:
    shown("audit", spec, "--out", "run", "--quiet")
    Path("run/report.html").unlink()
    shown("report", "run", "--json", "results.json", "--csv", "tables")
    assert not Path("run/report.html").exists()  # it was not asked for
    assert json.loads(Path("results.json").read_text())["spec"]["model"]["uri"] == "python:victims:right"
    with Path("tables/rows.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 60
    shown("report", "run", "--html", "page.html")
    assert Path("page.html").stat().st_size > 1000
    shown("report", "run")
    assert Path("run/report.html").exists()


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("clean_accuracy=0.5", 0),
        ("clean_accuracy=0.999", 1),
        ("robust_accuracy=0", 0),
        ("robust_accuracy=0.1", 1),
        ("robust_accuracy/pgd linf=0.1", 1),
        ("map_iou/pgd linf/gradient_input=0", 0),
    ],
)
def test_gates(capsys: pytest.CaptureFixture[str], spec: Path, gate: str, code: int) -> None:
    assert main(["audit", str(spec), "--out", "run", "--quiet", "--fail-under", gate]) == code
    said = capsys.readouterr().err
    assert said.startswith(f"gate failed: {gate.rpartition('=')[0]} is ") if code else said == ""


def test_a_gate_of_the_spec(capsys: pytest.CaptureFixture[str]) -> None:
    gates = [{"measure": "robust_accuracy", "attack": "pgd linf", "eps": 1.0, "at_least": 0.25}]
    Path("mine.yaml").write_text(yaml.safe_dump({**SPEC, "gates": gates}))
    assert main(["audit", "mine.yaml", "--out", "run", "--quiet"]) == 1
    assert "is 0 (estimate), not at least 0.25" in capsys.readouterr().err


def test_the_list_has_every_card(shown: Shown, parsed: Parsed) -> None:
    everything = parsed("list")
    assert [(c["kind"], c["name"]) for c in everything] == [(c.kind, c.name) for c in cards()]
    assert all({"paper", "domains", "summary"} <= set(card) for card in everything)
    assert parsed("list", "attacks") == parsed("list", "attack") == [c for c in everything if c["kind"] == "attack"]
    table = shown("list", "attack")
    assert all(f"\n{card.name} " in table for card in cards("attack")) and "white-box" in table
    assert "joined by underscores" in " ".join(table.split())  # how names of transfer attacks are composed
    everywhere = " ".join(shown("list").split())
    assert all(card.name in everywhere for card in cards())
    assert "Take steps along the steepest direction" in everywhere


def test_the_list_shows_a_method_by_its_name(shown: Shown, parsed: Parsed) -> None:
    assert shown("list", "pgd") == shown("show", "pgd")
    assert parsed("list", "pgd") == parsed("show", "pgd")


def test_a_kind_without_methods_says_so_and_is_not_offered(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    empty = [kind for kind in KINDS if not list(cards(kind))]
    assert [shown("list", kind) for kind in empty] == [f"there is no method of the kind {kind} yet\n" for kind in empty]
    assert main(["list", "attak"]) == 2
    offered = capsys.readouterr().err
    assert "attack" in offered and not any(kind in offered for kind in empty)


def test_reproductions_are_listed(shown: Shown, parsed: Parsed) -> None:
    names = {entry["name"] for entry in parsed("reproduce")}
    assert {"interpretability-aware-mnist", "adv2-imagenet"} <= names
    listed = shown("reproduce", "--list")
    assert all(name in listed for name in names)


def test_a_reproduction_shows_its_table(
    shown: Shown, parsed: Parsed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(name: str, *, out: Path, progress: Callable[[int, int, str], None], **options: Any) -> Path:
        progress(1, 2, "half")
        assert options == {
            "data_root": tmp_path,
            "seed": 4,
            "device": "cpu",
            "quick": True,
            "full": False,
            "work": None,
        }
        out.mkdir(parents=True)
        (out / f"{name}.json").write_text('{"name": "x"}')
        (out / f"{name}.md").write_text("# table\n")
        return out / f"{name}.md"

    monkeypatch.setattr("underfire.reproductions.run", run)
    command = ("reproduce", "x", "--data", tmp_path, "--quick", "--seed", 4, "--device", "cpu", "--out")
    assert shown(*command, "a") == "# table\n"
    assert parsed(*command, "b") == {"name": "x"}


def test_every_stage_of_a_job_counts_its_own_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("underfire.cli.progress.EVERY", 0.01)
    with ExitStack() as stack:
        bar = StagedBar(stack, "job", "parts", "opening", quiet=False)
        for stage in ((1, 900, "train"), (3, 40, "attack"), (1, 40, "attack again")):
            bar(*stage)
            time.sleep(0.05)
    lines = capsys.readouterr().err
    assert all(text in lines for text in ("train: 1/900 parts", "attack: 3/40 parts", "attack again: 1/40 parts"))


def test_help_and_version(shown: Shown) -> None:
    from underfire import __version__

    assert shown("--version") == f"underfire {__version__}\n"
    every = shown("--help")
    for verb in ("audit", "report", "attack", "explain", "list", "reproduce"):
        assert verb in every and "Usage: underfire " + verb in shown(verb, "--help")


@pytest.mark.parametrize("arguments", [["audit", "--wrkers", "2"], ["attak"], ["attack", "pgd"]])
def test_a_wrong_command_is_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "See: underfire" in said


def test_an_audit_whose_results_are_at_a_url(shown: Shown, parsed: Parsed, spec: Path) -> None:
    text = shown("audit", spec, "--out", "memory://cli/mine", "--executor", "in-process")
    assert "Report: mine.html" in text and Path("mine.html").read_text().startswith("<!")
    assert parsed("report", "memory://cli/mine")["spec"]["executor"] == "in-process"
    assert not Path("memory:").exists() and not Path("runs").exists()


@pytest.mark.slow
def test_a_run_folder_may_have_a_colon_and_damage_is_told(
    shown: Shown, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown("audit", spec, "--out", "run:1")
    assert Path("run:1/report.html").exists()
    table = next(Path("run:1/cells").glob("*/table.parquet"))
    table.write_bytes(b"")
    capsys.readouterr()
    for command in (("report", "run:1"), ("audit", spec, "--out", "run:1")):
        main([str(word) for word in command])
        assert f"damaged after they were written: {table.relative_to('run:1')}" in capsys.readouterr().err
    assert Ledger("run:1").missing == 0


@pytest.mark.slow
def test_the_share_of_waiting_is_told(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a thread in place of a worker process, which takes seconds to start
    pool = "underfire.audit.executors.ProcessPoolExecutor"
    monkeypatch.setattr(pool, lambda workers, *_, **__: ThreadPoolExecutor(workers))
    assert main(["audit", str(spec), "--out", "run", "--executor", "processes", "--workers", "1"]) == 0
    assert "workers waited" in capsys.readouterr().err
    assert 0 <= Ledger("run").environment["idle_share"] < 1


@pytest.mark.parametrize("executor", ["rai", "ray:", "ray://", "ray://host"])
def test_an_executor_that_there_is_not(spec: Path, executor: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(spec), "--executor", executor]) == 2
    captured = capsys.readouterr().err
    assert "ray://HOST:PORT" in captured and repr(executor) in captured
    spec.write_text(yaml.safe_dump(SPEC | {"executor": executor}))
    assert main(["audit", str(spec)]) == 2
    assert capsys.readouterr().err == captured


@pytest.mark.slow
def test_a_run_keeps_its_history(capsys: pytest.CaptureFixture[str], shown: Shown, spec: Path) -> None:
    shown("audit", spec, "--out", "run")
    first, page = Path("run/ledger.json").read_bytes(), Path("run/report.html").read_text()
    assert main(["audit", str(spec), "--out", "run"]) == 0  # the same plan: nothing to keep
    assert {path.name for path in Path("run").iterdir()} == {"cells", "ledger.json", "report.html"}
    capsys.readouterr()
    changed = {**SPEC, "attacks": [{"name": "fgsm", "eps": 0.05}]}
    spec.write_text(yaml.safe_dump(changed))
    assert main(["audit", str(spec), "--out", "run"]) == 0
    said = capsys.readouterr().err
    (ledger,), (report,) = Path("run").glob("ledger-*.json"), Path("run").glob("report-*.html")
    assert report.name in said and "--clean" in said
    assert json.loads(ledger.read_text())["spec"] == json.loads(first)["spec"] and "pgd" in report.read_text()
    assert report.read_text().count("pgd") == page.count("pgd")
    before = len(list(Path("run/cells").iterdir()))
    assert main(["report", "run", "--clean"]) == 0
    assert "deleted" in capsys.readouterr().err and len(list(Path("run/cells").iterdir())) < before
    assert Ledger("run").missing == 0 and Ledger("run").sql("SELECT count(*) AS n FROM rows")[0]["n"] == 30
    assert main(["report", "run", "--clean"]) == 0
    assert "deleted 0 results" in capsys.readouterr().err
