"""Code of the user: what it raises, prints and needs becomes one line."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from tests.networks import rand
from underfire import models, own_code
from underfire.errors import DataError, ModelError
from underfire.model import Classifier

CODE = """
import sys
import torch
from underfire.domains import Domain
from underfire.model import Classifier

print("printed on import")
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
number = 3

def plain():
    print("printed by plain")
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))

def wrapped():
    return Classifier(plain(), mean=(0.5,), std=(0.25,), labels=["no", "yes"])

def table():
    return Classifier(torch.nn.Linear(4, 2), domain=Domain("table", ndim=2))

def with_arguments(depth, *, bias=True, kind="linear"):
    assert kind == "linear"
    head = torch.nn.Linear(4, depth, bias=bias)
    return torch.nn.Sequential(torch.nn.Flatten(), head)

class Net(torch.nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.head = torch.nn.Linear(4, classes)
    def forward(self, x):
        return self.head(x.flatten(1))

def text():
    return "a network"

def raises():
    raise KeyError("first line\\nsecond line")

def leaves():
    sys.exit(0)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "code_of_a_test.py").write_text(CODE)
    monkeypatch.delitem(sys.modules, "code_of_a_test", raising=False)
    return "python:code_of_a_test"


def test_modules_and_what_functions_return(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("network", "plain", "Net"):
        model = models.load(f"{module}:{name}")
        assert model.labels is None and not model.module.training and model.predict(rand(3, 1, 2, 2)).shape == (3, 2)
    assert models.load(f"{module}:network").module is sys.modules["code_of_a_test"].network
    out, err = capsys.readouterr()
    assert not out and "printed on import" in err and "printed by plain" in err
    wrapped = models.load(f"{module}:wrapped")
    assert wrapped.labels == ("no", "yes") and wrapped.mean.item() == 0.5 and wrapped.std.item() == 0.25
    assert not isinstance(wrapped.module, Classifier)
    assert models.load(f"{module}:table").domain.name == "table"


def test_arguments(module: str) -> None:
    model = models.load(f"{module}:with_arguments?depth=7&bias=false&kind=linear&mean=0.5")
    assert model.predict(rand(3, 1, 2, 2)).shape == (3, 7)
    assert model.module[1].bias is None and model.mean.item() == 0.5
    assert models.load(f"{module}:Net?classes=5").predict(rand(3, 1, 2, 2)).shape == (3, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":plane", "'plane'; .*'plain'"),
        (":text", "returned str"),
        (":number", "it is int"),
        (":raises", r"KeyError: 'first line.*code_of_a_test.py, line \d+\)$"),
        (":leaves", "sys.exit"),
        (":with_arguments", r"'depth'.*\?argument=value"),
        (":plain?depth=3", "'depth'"),
        (":network?depth=3", "leave out depth="),
        (":with_arguments?depth=many", "TypeError"),
        ("", "must be python:package.module:name"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(module: str, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        models.load(module + name)
    assert "\n" not in str(caught.value)


def test_modules_that_cannot_be_imported(module: str) -> None:
    Path("broken_of_a_test.py").write_text("def build(:\n")
    Path("early_of_a_test.py").write_text("import sys\nsys.exit(3)\n")
    Path("needs_of_a_test.py").write_text("import no_such_package_at_all\n")
    for name, message in {
        "broken_of_a_test": r"SyntaxError.*broken_of_a_test.py, line 1\)",
        "early_of_a_test": "sys.exit: 3",
        "needs_of_a_test": "No module named 'no_such_package_at_all'",
        "os:system?command=3,": "os:system failed: TypeError",
        "os:system": "'command'",
        "os:getcwd": "returned str",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            models.load(f"python:{name}" if ":" in name else f"python:{name}:build")
        assert "\n" not in str(caught.value)


def test_code_that_hangs_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "PATIENCE", 0.02)
    with own_code.running("python:slow:build", DataError):
        time.sleep(0.2)
    assert "python:slow:build has been running for" in capsys.readouterr().err
    with (
        pytest.raises(DataError, match="python:slow:build failed: ZeroDivisionError"),
        own_code.running("python:slow:build", DataError),
    ):
        torch.zeros(1 // 0)
