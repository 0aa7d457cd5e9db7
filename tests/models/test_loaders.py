"""Models by URI: every kind of file and source, whole, damaged and hostile."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.networks import rand
from underfire import models
from underfire.errors import MissingExtra, ModelError, ModelNotice
from underfire.model import Classifier

ARCH = "?arch=mnist_small_normal"


@pytest.fixture
def state() -> dict[str, Tensor]:
    network = models.zoo.entry("mnist_small_normal").build()
    generator = torch.Generator().manual_seed(0)
    return {key: 0.1 * torch.randn(value.shape, generator=generator) for key, value in network.state_dict().items()}


@pytest.fixture
def x() -> Tensor:
    return rand(3, 1, 28, 28, seed=1)


def direct(state: dict[str, Tensor], x: Tensor) -> Tensor:
    network = models.zoo.entry("mnist_small_normal").build()
    network.load_state_dict(state)
    with torch.no_grad():
        logits: Tensor = network(x)
    return logits


def test_safetensors_and_pickles_of_weights(tmp_path: Path, state: dict[str, Tensor], x: Tensor) -> None:
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pt", "c.pth"):
        model = models.load(f"{tmp_path / name}{ARCH}")
        assert not model.training and not model.module.training
        assert torch.equal(model.predict(x), direct(state, x)), name
        assert model.labels == tuple("0123456789")


def test_what_the_caller_says_goes_first(tmp_path: Path, state: dict[str, Tensor], x: Tensor) -> None:
    save_file(state, tmp_path / "a.safetensors")
    names = [f"class {i}" for i in range(10)]
    model = models.load(f"{tmp_path / 'a.safetensors'}{ARCH}", mean=0.5, std=0.25, labels=names)
    assert torch.allclose(model.predict(x), direct(state, (x - 0.5) / 0.25))
    assert model.name_of(3) == "class 3"


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch hostile-pickle-was-here",)


def test_a_pickle_that_wants_to_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Hostile()}, "hostile.pt")
    with pytest.raises(ModelError, match="'hostile.pt' .*(posix|nt).system") as caught:
        models.load(f"hostile.pt{ARCH}")
    assert "\n" not in str(caught.value)
    assert not Path("hostile-pickle-was-here").exists()


def test_a_whole_network_in_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "network.pt")
    with pytest.raises(ModelError, match="pickle .* torch.nn.modules.linear.Linear"):
        models.load(f"{tmp_path / 'network.pt'}{ARCH}")


def test_files_that_are_damaged(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for name in ("missing.safetensors", "missing.pt", "missing.pt2"):
        with pytest.raises(ModelError, match="there is no file"):
            models.load(f"{tmp_path / name}{ARCH}")
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    for name, message in (("a.safetensors", "is not a whole safetensors file"), ("a.pt", "is not a file of weights")):
        whole = (tmp_path / name).read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"these are words"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ModelError, match=message) as caught:
                models.load(f"{tmp_path / name}{ARCH}")
            assert "\n" not in str(caught.value)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="must hold a state dict"):
        models.load(f"{tmp_path / 'list.pt'}{ARCH}")


def test_weights_that_do_not_fit(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.safetensors"
    save_file({key: value for key, value in state.items() if not key.startswith("conv1")}, path)
    with pytest.raises(ModelError, match="mnist_small_normal: 2 .*'conv1.bias', 'conv1.weight'"):
        models.load(f"{path}{ARCH}")
    save_file({**state, "extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="1 .* too many.*'extra'"):
        models.load(f"{path}{ARCH}")
    save_file({**state, "conv1.bias": torch.zeros(17)}, path)
    with pytest.raises(ModelError, match=r"'conv1.bias' .*\[16\].*\[17\]"):
        models.load(f"{path}{ARCH}")


def test_uris_that_cannot_be(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    for uri, message in {
        "zo:x": "unknown model 'zo:x'; did you mean 'zoo:'",
        "network.zip": r"unknown model 'network.zip'.* or a file \(\.safetensors",
        f"{tmp_path / 'a.safetensors'}": r"needs its architecture, .*arch=NAME",
        f"{tmp_path / 'a.safetensors'}?arch=resnet20_cifar": "did you mean 'resnet20_cifar10'",
        f"{tmp_path / 'a.safetensors'}?arc=x": "has no option 'arc'; did you mean 'arch'",
        "python:package": "must be python:package.module:name",
        "python:no_such_package_here:make": "cannot be imported: No module named 'no_such_package_here'",
        "onnx:missing.onnx": "there is no file 'missing.onnx'",
    }.items():
        with pytest.raises(ModelError, match=message):
            models.load(uri)
    with pytest.raises(ModelError, match="device 'nowhere'"):
        models.load("zoo:cluttered_digits", device="nowhere")


def test_the_fingerprint_sees_weights_and_normalisation() -> None:
    def make(**changes: float) -> Classifier:
        network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        nn.init.constant_(network[0].weight, changes.pop("weight", 1.0))  # type: ignore[arg-type]
        nn.init.constant_(network[0].bias, 0.0)  # type: ignore[arg-type]
        nn.init.constant_(network[1].running_mean, changes.pop("running", 0.0))  # type: ignore[arg-type]
        return Classifier(network, **changes)

    different = [make(), make(weight=2.0), make(running=1.0), make(mean=0.5), make(std=0.5)]
    assert len({models.fingerprint(model) for model in different}) == len(different)
    assert models.fingerprint(make()) == models.fingerprint(make()) == models.fingerprint(make().train())
    assert models.fingerprint(make()) != models.fingerprint(make().to(torch.bfloat16))


def test_the_fingerprint_sees_the_weights_of_quantised_layers() -> None:
    def make(scale: float) -> Classifier:
        layer = nn.Linear(4, 2)
        nn.init.constant_(layer.weight, scale)
        nn.init.constant_(layer.bias, 0.0)
        quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), layer).eval(), {nn.Linear})
        return Classifier(quantised)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another package for quantisation
        assert models.fingerprint(make(1.0)) == models.fingerprint(make(1.0)) != models.fingerprint(make(2.0))


# --- hubs, by stand-ins: what is asked of each package, and what is made of its answer ---


@pytest.mark.parametrize(
    ("uri", "package"), [("timm:x", "timm"), ("torchvision:x", "torchvision"), ("hf:x", "transformers")]
)
def test_a_missing_extra_says_how_to_get_it(uri: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=f"{package} .* pip install {package}"):
        models.load(uri)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


def network(**attributes: object) -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    vars(made).update(attributes)
    return made


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = network(pretrained_cfg={"mean": (0.5,), "std": (0.25,)}), []
    stand_in(
        monkeypatch,
        "timm",
        is_model=lambda name: name == "tiny",
        list_models=lambda: ["tiny", "huge"],
        create_model=lambda name, **options: asked.append(options) or made,
    )
    model = models.load("timm:tiny")
    assert model.module is made and model.mean.item() == 0.5 and model.std.item() == 0.25
    models.load("timm:tiny?pretrained=false&num_classes=7")
    assert asked == [{"pretrained": True}, {"pretrained": False, "num_classes": 7}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.pretrained_cfg["num_classes"] = 7
        models.load("timm:tiny?num_classes=7")
        made.pretrained_cfg["num_classes"] = 1000
        models.load("timm:tiny?pretrained=false&num_classes=7")
    with pytest.warns(ModelNotice, match="1000 classes"):
        models.load("timm:tiny?num_classes=7")
    with pytest.raises(ModelError, match="timm .*'tinny'; .*'tiny'"):
        models.load("timm:tinny")


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = network(), []
    weights = SimpleNamespace(
        transforms=lambda: SimpleNamespace(mean=[0.5], std=[0.25]), meta={"categories": ["a", "b"]}
    )
    hub = SimpleNamespace(
        list_models=lambda: ["tiny"],
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=weights),
        get_model=lambda name, **options: asked.append(options) or made,
    )
    stand_in(monkeypatch, "torchvision", models=hub)
    monkeypatch.setitem(sys.modules, "torchvision.models", hub)
    model = models.load("torchvision:tiny")
    assert model.module is made and model.labels == ("a", "b") and model.mean.item() == 0.5
    random = models.load("torchvision:tiny?pretrained=false")
    assert random.labels is None and random.std.item() == 0.25
    assert asked == [{"weights": weights}, {"weights": None}]
    with pytest.raises(ModelError, match="torchvision has no model 'x'"):
        models.load("torchvision:x")


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(nn.Module):
        config = SimpleNamespace(id2label={1: "yes", 0: "no"})

        def forward(self, pixels: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=pixels.flatten(1)[:, :2])

    def loads(value: object) -> SimpleNamespace:
        return SimpleNamespace(from_pretrained=lambda name, **options: asked.append(options) or value)

    asked: list[dict[str, object]] = []
    processor = SimpleNamespace(image_mean=[0.5], image_std=[0.25], do_normalize=True)
    found: dict[str, list[str]] = {"missing_keys": []}
    kinds = {"AutoModelForImageClassification": loads((Answer(), found)), "AutoImageProcessor": loads(processor)}
    stand_in(monkeypatch, "transformers", **kinds)
    stand_in(monkeypatch, "torchvision")  # importing it takes seconds
    model = models.load("hf:someone/something")
    assert model.labels == ("no", "yes")
    assert torch.equal(model(torch.ones(1, 1, 1, 2)), torch.full((1, 2), 2.0))
    processor.do_normalize = False
    assert torch.equal(models.load("hf:someone/something?revision=abc")(torch.ones(1, 1, 1, 2)), torch.ones(1, 2))
    assert asked[-1] == {"trust_remote_code": False, "revision": "abc"}
    processor.do_normalize, processor.do_rescale = True, False  # its mean and std are those of pixels from 0 to 255
    assert torch.allclose(models.load("hf:x/y")(torch.ones(1, 1, 1, 2)), torch.tensor((255 - 0.5) / 0.25))
    kinds["AutoImageProcessor"].from_pretrained = lambda name, **options: Path("no processor").read_text()
    with pytest.raises(ModelError, match="give mean and std"):
        models.load("hf:x/y")
    assert torch.equal(models.load("hf:x/y?mean=0.5&std=0.25")(torch.ones(1, 1, 1, 2)), torch.full((1, 2), 2.0))
    found["missing_keys"] = ["head.weight"]
    with pytest.raises(ModelError, match="'head.weight'"):
        models.load("hf:x/y?mean=0&std=1")


def test_a_hub_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **options: object) -> nn.Module:
        raise OSError("no such thing\nand a second line")

    stand_in(monkeypatch, "timm", is_model=lambda name: True, create_model=fail)
    with pytest.raises(ModelError, match="loaded: no such thing$"):
        models.load("timm:tiny")
