"""Networks that were compiled to a program: TorchScript and torch.export."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from underfire import models
from underfire.errors import ModelError
from underfire.model import Classifier
from underfire.models import programs

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore::UserWarning:torch.export")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (result,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    return result


def test_torchscript(network: nn.Module, x: Tensor, tmp_path: Path) -> None:
    for name, program in {
        "script.pt": torch.jit.script(network),
        "trace.torchscript": torch.jit.trace(network, x),
    }.items():
        program.train().save(str(tmp_path / name))
        model = models.load(f"{tmp_path / name}?mean=0.5,0.5,0.5&std=0.25")
        assert not model.module.training
        inside = (x - 0.5) / 0.25
        assert torch.allclose(model.predict(x), network(inside), atol=1e-6)
        assert torch.allclose(gradient(model, x), gradient(network, inside) / 0.25, atol=1e-5)
    with pytest.raises(ModelError, match="TorchScript network.*leave out arch="):
        models.load(f"{tmp_path / 'script.pt'}?arch=cluttered_digits")
    whole = (tmp_path / "script.pt").read_bytes()
    (tmp_path / "script.pt").write_bytes(whole[:-10000] + bytes(9000) + whole[-1000:])
    with pytest.raises(ModelError):
        models.load(str(tmp_path / "script.pt"))


def test_the_fingerprint_sees_weights_that_are_constants(network: nn.Module, x: Tensor, tmp_path: Path) -> None:
    other = copy.deepcopy(network)
    nn.init.zeros_(other[-1].bias)
    for name, net in {"a": network, "b": other}.items():
        frozen = torch.jit.freeze(torch.jit.script(net))
        frozen.save(str(tmp_path / f"{name}.pt"))
        assert not frozen.state_dict() and torch.allclose(Classifier(frozen).predict(x), net(x), atol=1e-6)
    a, again, b = (models.fingerprint(models.load(str(tmp_path / f"{name}.pt"))) for name in "aab")
    assert a == again != b


class Writer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "written-by-a-network")
        return x


class Starter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.bias, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.save(state[0], "written-by-a-network")
        self.bias, self.training = state

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


@pytest.mark.parametrize("kind", [Writer, Starter])
def test_torchscript_that_writes_files_is_not_opened(
    kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(kind()).save("a.pt")
    Path("written-by-a-network").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="'a.pt' was not opened: .*save"):
        models.load("a.pt")
    assert not Path("written-by-a-network").exists()


def test_torch_export(network: nn.Module, x: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    torch.export.save(torch.export.export(network, (x[:2],)), path)  # for batches of exactly two
    with pytest.raises(ModelError, match=r"can run code .*\?trust=true"):
        models.load(str(path))
    model = models.load(f"{path}?trust=true")
    assert torch.allclose(model.predict(x), network(x), atol=1e-6)
    assert torch.allclose(gradient(model, x), gradient(network, x), atol=1e-6)
    assert not model.train().eval().training
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="torch.export") as caught:
        models.load(f"{path}?trust=true")
    assert "\n" not in str(caught.value)


def test_a_factory_that_returns_an_exported_module(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exported_by_a_test.py").write_text(
        "import torch\nclass Modeless(torch.nn.Module):\n    def train(self, mode=True):\n"
        "        raise NotImplementedError('Calling train() is not supported yet.')\n"
        "    def forward(self, x):\n        return x.flatten(1)[:, :2]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    model = models.load("python:exported_by_a_test:Modeless")
    assert isinstance(model.module, programs.Exported) and torch.equal(model.predict(x), x.flatten(1)[:, :2])


def test_batches_of_one_size(x: Tensor) -> None:
    sizes = []

    def call(part: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(part))
        return part.flatten(1), part.mean((1, 2, 3))

    flat, mean = programs.in_parts(call, x, 2)
    assert sizes == [2, 2] and torch.equal(flat, x.flatten(1)) and torch.equal(mean, x.mean((1, 2, 3)))
