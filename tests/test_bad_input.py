"""What is wrong is said in one line with its exit code, and nothing is half-written or lost."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from underfire.audit import backends
from underfire.audit.ledger import Ledger
from underfire.cli import main

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

VICTIMS = Path(__file__).parent / "cli"
SPEC: dict[str, Any] = {
    "model": "python:victims:right",
    "data": {"uri": "digits:", "n": 40},
    "attacks": [{"name": "pgd", "eps": [0.1, 0.2], "steps": 2}],
    "masking": False,
    "gallery": 1,
    "shard_size": 10,
    "executor": "in-process",  # on a busy machine, others would start processes in which nothing is patched
}
Fails = Callable[..., str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test runs in an empty folder, with the victims on the path."""
    monkeypatch.syspath_prepend(VICTIMS)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("victims", None)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the command line with these arguments; it must end with `ends` and one line of error, which is given back."""

    def run(*arguments: object, ends: int = 2) -> str:
        before = set(Path().rglob("*"))
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert (code, shown.out) == (ends, ""), shown
        lines = shown.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), shown.err
        assert set(Path().rglob("*")) == before, "something was written"
        return lines[0]

    return run


def spec(**changes: Any) -> Path:
    path = Path("spec.yaml")
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return path


def attack(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "pgd", "eps": 0.1, "steps": 2, **changes}]


# --- the spec --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"atacks": []}, "unknown key 'atacks'; did you mean 'attacks'?"),
        ({"attacks": attack(stesp=3)}, "unknown key 'attacks[0].stesp'; did you mean 'steps'?"),
        ({"data": {"uri": "digits:", "sed": 1}}, "unknown key 'data.sed'; did you mean 'seed'?"),
        ({"seeds": "many"}, "'seeds'"),
        ({"gallery": 1.5}, "'gallery'"),
        ({"attacks": attack(steps="two")}, "'attacks[0].steps' should be a whole number, got 'two'"),
        ({"attacks": attack(steps=0)}, "'attacks[0].steps' should be at least 1, got 0"),
        ({"attacks": attack(eps=-0.1)}, "'attacks[0].eps[0]' should be greater than or equal to 0, got -0.1"),
        ({"attacks": ["pdg"]}, "unknown attack 'pdg'; did you mean 'pgd'?"),
        ({"attacks": ["adv2"]}, "'attacks[0].interpreter' is missing"),
        ({"interpreters": ["grad_cma"]}, "unknown interpreter 'grad_cma'; did you mean 'grad_cam'?"),
        ({"model": "zo:x"}, "unknown model 'zo:x'; did you mean 'zoo:'?"),
        ({"data": "digit:"}, "did you mean 'digits:'?"),
        ({"data": {"uri": "digits:", "n": 10**6}}, "cannot draw n=1000000 images, there are 599"),
        ({"device": "abacus"}, "'abacus' is not available here"),
        ({"model": "timm:resnet18"}, "pip install timm"),
    ],
)
def test_a_wrong_spec(fails: Fails, changes: dict[str, Any], says: str) -> None:
    if "timm" in str(changes) and _installed("timm"):
        pytest.skip("timm is installed here, so it is not missing")
    assert says in fails("audit", spec(**changes), "--out", "run")


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def test_a_spec_that_is_no_spec(fails: Fails) -> None:
    assert "cannot read the spec 'none.yaml': No such file or directory" in fails("audit", "none.yaml")
    Path("list.yaml").write_text("[1, 2]")
    assert "a spec must be a mapping" in fails("audit", "list.yaml")
    Path("broken.yaml").write_text("model: [1,\nattacks")
    assert "is not valid YAML, line 2" in fails("audit", "broken.yaml")
    Path("twice.yaml").write_text("model: x\nattacks:\n- {name: pgd, eps: 0.1, eps: 0.9}")
    assert "line 3, column 25: the key 'eps' is given twice" in fails("audit", "twice.yaml")
    Path("tabs.yaml").write_text("model:\n\turi: x")
    assert "is not valid YAML, line 2, column 1: found character '\\t'" in fails("audit", "tabs.yaml")
    Path("folder").mkdir()
    assert "cannot read the spec 'folder': Is a directory" in fails("audit", "folder")
    assert "greater than or equal to 0" in fails("audit", spec(), "--seed", -1)
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not a UTF-8 text file" in fails("audit", "binary.yaml")


# --- methods ---------------------------------------------------------------------------------------------------------

DIGITS = ("digits:", "--model", "python:victims:without_pooling", "--n", 4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("attack", "pdg", *DIGITS), "unknown attack 'pdg'; did you mean 'pgd'?"),
        (("attack", "pgd", *DIGITS, "--eps", "-0.1"), "greater than or equal to 0, got"),
        (("attack", "pgd", *DIGITS, "--eps", "large"), "should be a valid number, got 'large'"),
        (("attack", "pgd", *DIGITS, "--steps", 0), "'steps' should be at least 1, got 0"),
        (("attack", "fgsm", *DIGITS, "--steps", 2), "unknown key 'steps'"),
        (("attack", "bim", *DIGITS, "--norm", "l2"), "bim has no norm 'l2'"),
        (("attack", "pgd", *DIGITS, "--set", "stesp=2"), "unknown key 'stesp'; did you mean 'steps'?"),
        (("attack", "pgd", *DIGITS, "--goal", "eleven"), "the model has no class 'eleven'; use a number from 0 to 9"),
        (("attack", "illc", *DIGITS, "--goal", "random"), "illc has no targeted mode"),
        (("attack", "adv2", *DIGITS), "'interpreter' is missing: adv2 is aimed at an explanation, one of"),
        (("attack", "pgd", *DIGITS, "--device", "abacus"), "device 'abacus' is not available here; use one of: cpu"),
        (("explain", "cam", *DIGITS), "CAM needs global average pooling"),
        (("explain", "grad_cam", *DIGITS, "--set", "layer=9"), "no layer '9'; Choices: 0, 1, 1.linear"),
        (("explain", "saliency", *DIGITS), "unknown interpreter 'saliency'"),
        (("list", "atacks"), "unknown kind or method 'atacks'; did you mean 'attack'?"),
        (("reproduce", "adv2-imagenett"), "did you mean 'adv2-imagenet'?"),
        (("report", "nowhere"), "'nowhere' is not a run folder: it has no ledger.json"),
    ],
)
def test_a_wrong_method(fails: Fails, arguments: tuple[object, ...], says: str) -> None:
    assert says in fails(*arguments)


def test_an_interpreter_that_the_model_cannot_support_stops_an_audit(fails: Fails) -> None:
    model = {"model": "python:victims:without_pooling"}
    assert "CAM needs global average pooling" in fails("audit", spec(**model, interpreters=["cam"]), "--out", "run")
    layer = spec(**model, interpreters=[{"name": "grad_cam", "layer": "9"}])
    assert "no layer '9'; Choices: 0, 1, 1.linear" in fails("audit", layer, "--out", "run")


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("wrong_shape", "the model must map 40 images to logits [40, K], got (40, 10, 1)"),
        ("not_a_number", "the model returns NaN or infinite logits for 40 of 40 images"),
        ("backwards", "guessing among 10 classes would get 4: wrong normalisation or label order?"),
        ("colour", "the model does not take inputs of shape [40, 1, 8, 8]"),
        ("nobody", "module 'victims' has no 'nobody'"),
    ],
)
def test_a_wrong_model(fails: Fails, model: str, says: str) -> None:
    assert says in fails("audit", spec(model=f"python:victims:{model}"), "--out", "run")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth"])
def test_a_pickle_that_wants_to_run_code_does_not(fails: Fails, name: str) -> None:
    torch.save({"state_dict": Trap()}, name)
    says = fails("audit", spec(model=f"{name}?arch=resnet20_cifar10"), "--out", "run")
    assert "pickle would run posix.mkdir" in says and "safetensors" in says
    Path(name).write_bytes(pickle.dumps(Trap()))
    fails("attack", "pgd", "digits:", "--model", f"{name}?arch=resnet20_cifar10")
    assert not Path("sprung").exists()


# --- images ----------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 100,000 by 100,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def whole_png() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save("whole.png")
    return Path("whole.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: b"", "is empty, not an image"),
        (lambda: whole_png()[:400], "cannot be read as an image"),
        (lambda: b"<html>not found</html>", "cannot be read as an image: no known format"),
        (bomb, "more than the"),
    ],
)
def test_a_wrong_image(fails: Fails, content: Callable[[], bytes], says: str) -> None:
    Path("photos/red").mkdir(parents=True)
    Path("photos/red/one.png").write_bytes(content())
    model = ("--model", "python:victims:colour")
    for message in (
        fails("explain", "gradient", "photos/red/one.png", *model),
        fails("attack", "pgd", "photos", *model),
        fails("audit", spec(data="folder:photos", model="python:victims:colour"), "--out", "run"),
    ):
        assert says in message and "one.png" in message


def test_pixels_outside_the_box(fails: Fails) -> None:
    Path("photos/red").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 7.0, dtype=np.float32)).save("photos/red/one.tif")
    says = "has pixels from 7 to 7, outside [0, 1]"
    assert says in fails("explain", "gradient", "photos/red/one.tif", "--model", "python:victims:colour")
    assert says in fails("audit", spec(data="folder:photos", model="python:victims:colour"), "--out", "run")


def test_labels_outside_the_classes(fails: Fails) -> None:
    for name in ("blue", "green", "red"):
        Path("photos", name).mkdir(parents=True)
        Image.new("RGB", (8, 8), name).save(f"photos/{name}/one.png")
    says = fails("audit", spec(data="folder:photos", model="python:victims:colour"), "--out", "run")
    assert "label 2 of 'red/one.png' is outside the model's 2 classes (0 to 1)" in says
    says = fails("attack", "fgsm", "folder:photos", "--model", "python:victims:colour")
    assert "label 2 is outside the model's 2 classes (0 to 1)" in says


def test_a_place_without_images(fails: Fails) -> None:
    Path("empty").mkdir()
    model = ("--model", "python:victims:colour")
    assert "no such image, folder or data URI: 'nothing.png'" in fails("explain", "gradient", "nothing.png", *model)
    says = fails("explain", "gradient", "digits", *model)
    assert "no such image, folder or data URI: 'digits'; the data URI is digits:" in says
    assert "no images in 'empty'" in fails("explain", "gradient", "empty", *model)
    assert "there is no folder 'nothing'" in fails("audit", spec(data="folder:nothing"), "--out", "run")


def test_images_of_another_size_than_the_model(fails: Fails) -> None:
    whole_png()
    says = fails("attack", "fgsm", "whole.png", "--model", "python:victims:right")
    assert "the model does not take inputs of shape [1, 1, 16, 16]" in says


# --- runs that end early ---------------------------------------------------------------------------------------------


def rows(run: str) -> list[dict[str, Any]]:
    """All that a run found but the time it took."""
    return Ledger(run).sql("SELECT * EXCLUDE (seconds) FROM rows ORDER BY label, eps, id")


def whole_cells(run: str) -> list[Path]:
    return sorted(Path(run, "cells").iterdir())


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_one_cell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = backends._write, []

    def until_full(place: Path, content: bytes) -> None:
        calls.append(place)
        if len(calls) > 20:
            place.write_bytes(content[:4])
            full_disk()
        write(place, content)

    command = ["audit", str(spec()), "--out", "run", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(backends, "_write", until_full)
        assert main(command) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and said[0].startswith("error: no space left to write to 'run'"), said
    kept = whole_cells("run")
    assert 0 < len(kept) <= 10 and all(not cell.name.startswith(".") for cell in kept)
    before = {cell: cell.stat().st_mtime_ns for cell in kept}
    finished = f"continuing: {Ledger('run').planned - Ledger('run').missing} of {Ledger('run').planned} cells"
    assert main(command[:-1]) == 0  # with space again it continues
    assert finished in capsys.readouterr().err
    assert {cell: cell.stat().st_mtime_ns for cell in kept} == before
    assert main(["audit", str(spec()), "--out", "other", "--quiet"]) == 0
    assert rows("run") == [{**row} for row in rows("other")]


@pytest.mark.parametrize("writer", ["underfire.figures.save", "pathlib.Path.write_text"])
def test_a_full_disk_leaves_no_pictures(fails: Fails, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    monkeypatch.setattr(writer, full_disk)
    says = fails("attack", "fgsm", "digits:", "--model", "python:victims:right", "--n", 2, "--quiet", ends=3)
    assert "No space left on device; free some space and run the same command again" in says


def test_an_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("underfire.audit.preparing.preflight", interrupted)
    assert main(["audit", str(spec()), "--out", "run"]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said == ["interrupted; run the same command again and it continues"]


# --- ledgers ---------------------------------------------------------------------------------------------------------


def test_a_ledger_of_a_newer_version(fails: Fails) -> None:
    Path("run").mkdir()
    Path("run/ledger.json").write_text(json.dumps({"schema": 99, "underfire": "9.9", "spec": {}}))
    for arguments in (("audit", spec(), "--out", "run"), ("report", "run")):
        assert "'run' was written by underfire 9.9 (schema 99)" in fails(*arguments)


def test_a_damaged_ledger(fails: Fails) -> None:
    Path("run").mkdir()
    for content in ("", "{", "[]", '{"schema": "new"}'):
        Path("run/ledger.json").write_text(content)
        assert "'run' is damaged" in fails("report", "run")


def test_a_run_folder_that_cannot_be_made(fails: Fails) -> None:
    Path("taken").write_text("a file")
    assert "cannot write to 'taken'" in fails("audit", spec(), "--out", "taken", "--quiet")
    says = fails("attack", "fgsm", "digits:", "--model", "python:victims:right", "--out", "taken")
    assert "taken is a file" in says


def test_pictures_are_not_overwritten(fails: Fails) -> None:
    command = ["attack", "fgsm", "digits:", "--model", "python:victims:right", "--n", "1", "--out", "out", "--quiet"]
    assert main(command) == 0
    assert "exists already; pass --force" in fails(*command)
    assert main([*command, "--force"]) == 0


def test_an_option_before_the_verb_that_does_not_exist(fails: Fails) -> None:
    assert "No such option: --nothing. See: underfire --help" in fails("--nothing")


def test_a_folder_with_a_name_that_no_system_takes(fails: Fails) -> None:
    assert "code 0" in fails("audit", "--out", "a\0b", "--dry-run")


def test_a_gate_that_names_nothing(fails: Fails) -> None:
    gate = ("--out", "run", "--fail-under")
    assert "--fail-under must be NAME=VALUE" in fails("audit", spec(), *gate, "half")
    assert "did you mean 'robust_accuracy'?" in fails("audit", spec(), *gate, "robust=0.5")
    assert main(["audit", str(spec()), "--out", "run", "--quiet"]) == 0
    says = fails("report", "run", "--quiet", "--json", "--csv", "tables", "--fail-under", "robust_accuracy/pdg=0.5")
    assert "no figure 'robust_accuracy/pdg'; did you mean 'robust_accuracy'?" in says
