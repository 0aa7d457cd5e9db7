"""Files of weights as training scripts write them: the names, the prefixes, other architectures, and their limits."""

from __future__ import annotations

import argparse
import sys
import zipfile
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.networks import rand
from underfire import models
from underfire.errors import ModelError
from underfire.models import checkpoints


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in small().state_dict().items()
    }


def put(named: dict[str, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
    network = small()
    checkpoints.put(named, network, "'a.pt' does not fit small", prefix)
    return network.state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


PREFIXES = (
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "anything.at.all.",
    "model.module._orig_mod.",
    "_orig_mod.module.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prefixes_before_all_names(prefix: str, suffix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, named = tmp_path / f"a{suffix}", {prefix + name: value.clone() for name, value in state.items()}
    torch.save(named, path) if suffix == ".pt" else save_file(named, path)
    assert equal(put(checkpoints.read(path)), state)


def test_names_under_which_scripts_keep_the_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for name in checkpoints.STATES:
        torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, name: state}, path)
        assert equal(checkpoints.read(path), state)
    for outer, inner in product(("checkpoint.x", "model"), ("state_dict", "net")):
        torch.save({outer: {inner: state, "acc": 0.9}, "epoch": 1}, path)
        key = None if outer == "model" else "checkpoint.x"
        if key is None:
            assert equal(checkpoints.read(path), state)
        else:
            with pytest.raises(ModelError, match="'checkpoint.x', 'epoch'"):
                checkpoints.read(path)
    torch.save({"state_dict": state, "ema": {"weights": {"a": torch.ones(1)}}}, path)
    assert equal(checkpoints.read(path, "ema.weights"), {"a": torch.ones(1)})
    with pytest.raises(ModelError, match="no entry 'emma' .*'state_dict', 'ema'"):
        checkpoints.read(path, "emma")


def test_a_part_that_was_wrapped_alone(state: dict[str, Tensor]) -> None:
    named = {name.replace("0.", "0.module.", 1) if name[0] == "0" else name: value for name, value in state.items()}
    assert "0.module.weight" in named and equal(put(named), state)
    twice = {**{f"module.{name}": value for name, value in state.items()}, "_orig_mod.3.bias": state["3.bias"]}
    with pytest.raises(ModelError, match="two parameters .*'3.bias'"):
        put(twice)


def test_other_parts_of_a_training_script_are_left_out(state: dict[str, Tensor]) -> None:
    named = {f"model.{name}": value for name, value in state.items()}
    assert equal(put({**named, "loss.weight": torch.ones(3)}), state)
    both = {**named, **{f"teacher.{name}": 2 * value for name, value in state.items()}}
    with pytest.raises(ModelError, match=r"prefix=model\., prefix=teacher\."):
        put(both)
    assert torch.equal(put(both, "teacher.")["3.bias"], 2 * state["3.bias"])


def test_what_does_not_fit_says_what_was_found_and_what_would_be_right(state: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="7 of 8 .*'1.bias'.*'x'"):
        put({"0.bias": state["0.bias"], "x": torch.ones(1)})
    with pytest.raises(ModelError, match=r"'3.bias'.*\[3\].*\[5\].*num_classes=5"):
        put({**state, "3.bias": torch.ones(5), "3.weight": torch.ones(5, 8)})
    with pytest.raises(ModelError, match="does not fit small"):
        put({**state, "0.bias": torch.empty(2, device="meta")})
    named = {f"teacher.{name}": value for name, value in state.items() if name != "0.bias"}
    with pytest.raises(ModelError, match="does not fit small"):
        put(named)


class Tiny(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.fc = nn.Linear(4, num_classes)
        self.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


def test_architectures_of_hubs_and_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, pretrained: bool, **options: int) -> nn.Module:
        assert not pretrained  # the weights are in the file; nothing is downloaded
        return Tiny(**options)

    timm = ModuleType("timm")
    vars(timm).update(is_model=lambda name: name == "tiny", list_models=lambda: ["tiny"], create_model=create)
    monkeypatch.setitem(sys.modules, "timm", timm)
    preset = SimpleNamespace(mean=[0.5], std=[0.25])
    published = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: preset, meta={"categories": ["a"]}))
    hub = SimpleNamespace(
        list_models=lambda: ["tiny"],
        get_model_weights=lambda name: published,
        get_model=lambda name, weights, **options: create(name, weights is not None, **options),
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=hub))
    monkeypatch.setitem(sys.modules, "torchvision.models", hub)
    (tmp_path / "tiny_of_a_test.py").write_text(
        "from torch import nn\ndef build(k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(4, k))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    weights = {"weight": rand(7, 4, seed=0), "bias": rand(7, seed=1)}
    torch.save({"model": {f"fc.{name}": value for name, value in weights.items()}}, "a.pt")
    torch.save({f"1.{name}": value for name, value in weights.items()}, "b.pt")
    x = rand(2, 1, 2, 2)
    wanted = ((x - 0.5) / 0.25).flatten(1) @ weights["weight"].T + weights["bias"]
    for hub_name in ("timm", "torchvision"):
        model = models.load(f"a.pt?arch={hub_name}:tiny&num_classes=7")
        assert model.labels is None and torch.allclose(model.predict(x), wanted, atol=1e-6)
        with pytest.raises(ModelError, match=r"1000.*num_classes=7"):
            models.load(f"a.pt?arch={hub_name}:tiny")
    own = models.load("b.pt?arch=python:tiny_of_a_test:build&k=7&mean=0.5&std=0.25")
    assert torch.allclose(own.predict(x), wanted, atol=1e-6)
    with pytest.raises(ModelError, match="arch=cluttered_digits has no option 'depth'"):
        models.load("a.pt?arch=cluttered_digits&depth=3")
    with pytest.raises(ModelError, match="mean .*'half'"):
        models.load("a.pt?arch=timm:tiny&mean=half")


def test_a_small_file_that_unpacks_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, bomb = tmp_path / "plain.pt", tmp_path / "bomb.pt"
    torch.save({"weight": torch.zeros(2**21)}, plain)  # 8 MiB
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert len(checkpoints.read(bomb)) == 1  # small enough for anyone
    monkeypatch.setattr(checkpoints, "SMALL", 2**20)
    assert len(checkpoints.read(plain)) == 1  # not compressed: as large as it is
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    for name in (bomb, f"{bomb}?arch=cluttered_digits"):
        with pytest.raises(ModelError, match=r" 8,3\d\d,\d\d\d,.*UNDERFIRE_MAX_UNPACKED"):
            models.load(str(name)) if "?" in str(name) else checkpoints.read(bomb)
    monkeypatch.undo()
    monkeypatch.setenv("UNDERFIRE_MAX_UNPACKED", "9000000")
    assert len(checkpoints.read(bomb)) == 1
    monkeypatch.setenv("UNDERFIRE_MAX_UNPACKED", "many")
    with pytest.raises(ModelError, match="UNDERFIRE_MAX_UNPACKED .*'many'"):
        checkpoints.read(bomb)


def test_arguments_of_a_training_script_beside_the_weights_are_read(tmp_path):
    network = nn.Linear(4, 3)
    arguments = argparse.Namespace(lr=0.1, out=Path("runs"))
    torch.save({"state_dict": network.state_dict(), "args": arguments}, tmp_path / "net.pt")
    state = checkpoints.read(tmp_path / "net.pt")
    assert torch.equal(state["weight"], network.weight)
