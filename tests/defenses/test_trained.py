"""HGD and ComDefend: their networks against the papers, what they learn, how they go on, what is refused."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand
from underfire import defenses
from underfire.data import Dataset
from underfire.defenses import train_comdefend, train_hgd
from underfire.defenses.comdefend.network import CompressionNetwork, from_squares, in_squares
from underfire.defenses.comdefend.network import layers as compression_layers
from underfire.defenses.hgd.crafting import kinds, perturbed
from underfire.defenses.hgd.denoiser import Denoiser
from underfire.errors import InputError, ModelError, NotFitted, Unsupported
from underfire.learning import initialised, write_tensors
from underfire.model import Classifier
from underfire.records import Batch


class Shades:
    """Images of one grey each, with little noise: class 1 is brighter than 0.5."""

    labels = ("dark", "bright")

    def __len__(self) -> int:
        return 48

    def read(self, index: list[int]) -> Batch:
        shade = torch.linspace(0.2, 0.8, 48)[:, None, None, None]
        x = (shade + 0.02 * rand(48, 3, 8, 8, seed=1)).clamp(0, 1)
        return Batch(x[index], (shade.flatten() > 0.5).long()[index], tuple(map(str, index)))


def brightness() -> Classifier:
    """See the mean of an image, and be misled by a pattern of single pixels, which no clean image has."""
    layer, head = nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate"), nn.Linear(3, 2)
    pattern = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]]).expand(3, 3, 3)
    pattern = (pattern - pattern.mean()) / 3
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.full((3, 3, 3), 1 / 27), pattern, -pattern]))
        layer.bias.zero_()
        head.weight.copy_(torch.tensor([[-20.0], [20.0]]).expand(2, 3))
        head.bias.copy_(torch.tensor([10.0, -10]))
    pool = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return Classifier(nn.Sequential(layer, *pool).eval(), labels=Shades.labels)


@pytest.fixture(scope="module")
def shades() -> Dataset:
    return Dataset("shades", Shades())


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Networks with their first weights."""
    return {
        "hgd": initialised(lambda: Denoiser(3, 2), 1).eval(),
        "comdefend": initialised(lambda: CompressionNetwork(3, 1, 4), 1).eval(),
    }


def test_the_denoiser_is_that_of_the_paper() -> None:
    """The five blocks down, the four up, and the convolution at the end, written out layer by layer."""
    net = initialised(lambda: Denoiser(3, 4), 0).eval()
    shapes = [tuple(m.weight.shape[:2]) for m in net.modules() if isinstance(m, nn.Conv2d)]
    down = [(4, 3), (4, 4), (8, 4), (8, 8), (8, 8), (16, 8), *[(16, 16)] * 8]
    up = [(16, 32), *[(16, 16)] * 2, (16, 32), *[(16, 16)] * 2, (8, 24), (8, 8), (8, 8), (4, 12), (4, 4), (3, 4)]
    assert shapes == down + up
    # at the width of the paper: the channels of the authors' code
    with torch.device("meta"):
        large = Denoiser(3)
    assert [block[-2].num_features for block in large.down] == [64, 128, 256, 256, 256]
    assert [block[-2].num_features for block in large.up] == [256, 256, 128, 64]
    # a slow version for an odd size
    x = rand(2, 3, 9, 12, seed=1)
    convolutions = iter(m for m in net.modules() if isinstance(m, nn.Conv2d))
    norms = iter(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))

    def block(h: Tensor, count: int, stride: int = 1) -> Tensor:
        for i in range(count):
            h = F.conv2d(h, next(convolutions).weight, stride=stride if i == 0 else 1, padding=1)
            h = F.relu(next(norms)(h))
        return h

    outputs = [block(x - 0.5, 2)]
    for _ in range(4):
        outputs.append(block(outputs[-1], 3, 2))
    h = outputs[4]
    for i, count in ((3, 3), (2, 3), (1, 3), (0, 2)):
        h = F.interpolate(h, size=outputs[i].shape[2:], mode="bilinear")
        h = block(torch.cat((h, outputs[i]), 1), count)
    assert torch.allclose(net(x), x + F.conv2d(h, next(convolutions).weight), atol=1e-6)


def test_the_compression_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        net = CompressionNetwork(3)
    compress, reconstruct = (
        [m.out_channels for m in part if isinstance(m, nn.Conv2d)] for part in (net.compress, net.reconstruct)
    )
    assert compress == [16, 32, 64, 128, 256, 128, 64, 32, 12]
    assert reconstruct == [32, 64, 128, 256, 128, 64, 32, 16, 3]
    assert [type(m) for m in compression_layers([3, 5, 7])] == [nn.Conv2d, nn.ELU, nn.Conv2d]


def test_bits_are_bits_and_their_gradient_is_that_of_the_sigmoid(small: dict[str, Any], images: Tensor) -> None:
    net, images, seen = deepcopy(small["comdefend"]).double(), images.double(), list[Tensor]()
    handle = net.reconstruct.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = images.clone().requires_grad_()
    net(x).square().sum().backward()
    handle.remove()
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    # the chain rule, written out
    code = net.compress(images - 0.5).detach().requires_grad_()
    bits = (code > 0).double().requires_grad_()
    net.reconstruct(bits).sigmoid().square().sum().backward()
    s = (code / 20).sigmoid()
    y = images.clone().requires_grad_()
    net.compress(y - 0.5).backward(bits.grad * s * (1 - s) / 20)
    assert torch.allclose(x.grad, y.grad, rtol=1e-6, atol=1e-12)


def test_squares_are_cut_and_put_together(small: dict[str, Any], relu_model: Classifier, images: Tensor) -> None:
    cut = in_squares(images[:2, :, :9, :11], 4)
    assert cut.shape == (2 * 3 * 3, 3, 4, 4)
    assert torch.equal(cut[4], images[0, :, 4:8, 4:8])
    assert torch.equal(cut[9 + 8][:, 0], images[1, :, 8, [8, 9, 10, 10]])
    assert torch.equal(from_squares(cut, images[:2, :, :9, :11].shape), images[:2, :, :9, :11])
    made = defenses.comdefend(relu_model, weights=small["comdefend"], patch=6)
    alone = [small["comdefend"](images[:, :, i : i + 6, j : j + 6]) for i in (0, 6) for j in (0, 6)]
    rows = [torch.cat(alone[i : i + 2], 3) for i in (0, 2)]
    assert torch.allclose(made(images), relu_model(torch.cat(rows, 2)), atol=1e-5)
    whole = defenses.comdefend(relu_model, weights=small["comdefend"])  # has settings of its own
    assert torch.allclose(whole(images), relu_model(small["comdefend"](images)), atol=1e-6)


def test_noise_on_the_code_makes_comdefend_random(
    small: dict[str, Any], relu_model: Classifier, images: Tensor
) -> None:
    noisy = defenses.comdefend(relu_model, weights=small["comdefend"], noise=20.0)
    assert noisy.random and not torch.equal(noisy(images), noisy(images))
    assert torch.equal(noisy.redraw(3)(images), noisy.redraw(3)(images))
    assert not defenses.comdefend(relu_model, weights=small["comdefend"]).random


def test_perturbed_images_are_of_every_kind_and_size(relu_model: Classifier) -> None:
    x, other = rand(200, 3, 12, 12, seed=2), Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)))
    assert [(k.source is None, k.steps) for k in kinds([relu_model])] == [
        (True, 0),
        (True, 1),
        (False, 1),
        (False, 2),
        (False, 4),
    ]
    assert len(kinds([relu_model, other, brightness()])) == 8
    found = perturbed(x, kinds([relu_model]), 16, Generator().manual_seed(0))
    size = 255 * (found - x).abs().flatten(1).amax(1)
    assert torch.allclose(size, size.round(), atol=1e-3)
    assert 20 < (size < 0.5).sum() < 60  # a fifth are clean
    assert size.max() <= 16.001 and len(size.round().unique()) == 17
    # FGSM leaves the predicted class: sign of the gradient of the cross-entropy
    fgsm = perturbed(x, [k for k in kinds([relu_model]) if k.source is not None][:1], 1, Generator().manual_seed(0))
    z = x.clone().requires_grad_()
    logits = relu_model(z)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1), reduction="sum"), z)
    assert torch.allclose(fgsm, (x + slope.sign() / 255).clamp(0, 1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["logits", "features", "class", "pixels"])
def test_a_denoiser_learns_to_undo_the_attack(shades: Dataset, guide: Any) -> None:
    model = brightness()
    options = {"width": 2, "batch_size": 24, "eps": 12 / 255, "rate": 0.01}
    net = train_hgd(model, shades, guide=guide, epochs=20 if guide == "logits" else 1, **options)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert all(p.grad is None for p in model.parameters())
    if guide == "logits":
        x, y = shades[:]
        x_adv = uf.attacks.pgd(model, x, y, eps=12 / 255, steps=10)
        made = defenses.hgd(model, weights=net)
        clean, attacked, saved = (
            (f(z).argmax(1) == y).float().mean() for f, z in ((model, x), (model, x_adv), (made, x_adv))
        )
        assert clean > 0.9 and saved > attacked + 0.2
        assert (made(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.slow
def test_comdefend_learns_to_reconstruct(shades: Dataset) -> None:
    x = shades[:].x
    net = train_comdefend(shades, width=4, epochs=15, batch_size=12, rate=3e-3, noise=1.0)
    assert (net(x) - x).square().mean() < 0.5 * x.var()


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", ["hgd", "comdefend"])
def test_interrupted_it_goes_on_to_the_same_weights(name: str, shades: Dataset, tmp_path: Path) -> None:
    kept, model = tmp_path / "state", brightness()

    def train(**options: Any) -> Any:
        settings: dict[str, Any] = {"epochs": 1, "batch_size": 24, "width": 1, **options}
        return train_hgd(model, shades, **settings) if name == "hgd" else train_comdefend(shades, **settings)

    def stop(done: int, total: int) -> None:
        assert total == 2
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=kept, progress=stop)
    with safe_open(kept, "pt") as file:
        assert file.metadata()["step"] == "0"
    before = torch.get_rng_state()
    whole = train()
    assert torch.equal(before, torch.get_rng_state())
    assert same(whole, train(checkpoint=kept))
    assert not same(whole, train(generator=Generator().manual_seed(5)))
    with pytest.raises(InputError, match="its options differs"):
        train(checkpoint=kept, rate=0.5)
    # the file holds what was learned
    whole.save(str(tmp_path / "w.safetensors"))
    defense, x = getattr(defenses, name), shades[:3].x
    again, direct = (defense(model, weights=w) for w in (str(tmp_path / "w.safetensors"), whole))
    assert torch.equal(again(x), direct(x))


@pytest.mark.parametrize("name", ["hgd", "comdefend"])
def test_without_right_weights_it_says_how_to_get_them(
    name: str, relu_model: Classifier, small: dict[str, Any], tmp_path: Path
) -> None:
    defense, path = getattr(defenses, name), tmp_path / "w.safetensors"
    with pytest.raises(NotFitted, match=f"underfire train {name}"):
        defense(relu_model)
    with pytest.raises(InputError, match="no weights file"):
        defense(relu_model, weights=str(path))
    other = "comdefend" if name == "hgd" else "hgd"
    small[other].save(str(path))
    with pytest.raises(InputError, match=f"weights of {other}"):
        defense(relu_model, weights=str(path))
    for facts in ({"defense": name}, {"defense": name, "sizes": "[]"}, {"defense": name, "sizes": '{"channels": 3}'}):
        write_tensors(path, {"a": torch.zeros(1)}, facts)
        with pytest.raises(InputError, match="is damaged") as caught:
            defense(relu_model, weights=str(path))
        assert len(str(caught.value).splitlines()) == 1
    small[name].save(str(path))
    grey = rand(2, 1, 12, 12)
    with pytest.raises(ModelError, match="3 channels.*1"):
        defense(relu_model, weights=str(path))(grey)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"guide": "logit"}, Unsupported),
        ({"eps": 0.001}, InputError),
        ({"epochs": 0}, InputError),
        ({"rate": 0}, InputError),
        ({"width": 0}, InputError),
        ({"batch_size": 0}, InputError),
        ({"sources": "zoo:resnet20_cifar10"}, InputError),
    ],
)
def test_settings_out_of_range(shades: Dataset, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        train_hgd(brightness(), shades, **options)
    if next(iter(options)) in ("epochs", "rate", "width", "batch_size"):
        with pytest.raises(error, match=next(iter(options))):
            train_comdefend(shades, **options)
