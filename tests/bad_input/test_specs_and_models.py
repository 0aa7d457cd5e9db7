"""A wrong spec, method or model is named in one line, and nothing is half-written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.specs import Fails, attack, spec

pytestmark = pytest.mark.slow  # they run the command line


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
