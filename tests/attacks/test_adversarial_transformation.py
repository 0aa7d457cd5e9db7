"""Adversarial Transformation Networks: the reranked target, a model whose best attack is known, networks kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from tests.networks import rand, randn
from underfire.attacks import adversarial_transformation
from underfire.attacks.adversarial_transformation import TransformationNetwork, reranked, train_generator
from underfire.data import load as load_data
from underfire.errors import InputError
from underfire.learning import write_tensors
from underfire.model import Classifier
from underfire.models import load as load_model

pytestmark = pytest.mark.slow  # one of the twenty heaviest files


def by_colour(weight: list[float]) -> nn.Module:
    """Class 1 where the weighted mean of the three channels, less a half each, is positive."""
    layer = nn.Linear(3, 2)
    w = torch.tensor(weight)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-w, w]))
        layer.bias.copy_(torch.stack([w.sum() / 2, -w.sum() / 2]))
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)


def test_the_goal_is_first_and_the_others_keep_their_order() -> None:
    y = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    found = reranked(y, torch.tensor([2, 2]), 1.5)
    assert torch.allclose(found[0] * 1.55, torch.tensor([0.5, 0.3, 0.75], dtype=y.dtype))
    assert torch.allclose(found[1] * 1.4, torch.tensor([0.1, 0.1, 1.2], dtype=y.dtype))


@pytest.mark.parametrize("residual", [True, False])
def test_what_a_linear_model_allows_is_found_on_unseen_images(residual: bool, generator: Generator) -> None:
    w, eps = [30.0, -20.0, 10.0], 0.1
    model = by_colour(w)
    shade = torch.rand(60, 3, 1, 1, generator=generator)
    x = 0.3 + 0.4 * shade + 0.05 * torch.rand(60, 3, 6, 8, generator=generator)
    logits = model(x)
    y = logits.argmax(1)
    # The largest change of the lead is 2 * eps * |w|_1, by the signs of w in every pixel.
    possible = (logits[:, 0] - logits[:, 1]).abs() < 2 * eps * 60
    easy = (logits[:, 0] - logits[:, 1]).abs() < 0.7 * 2 * eps * 60
    assert 10 <= easy.sum() <= possible.sum() < 60
    options = {"steps": 120, "step_size": 0.01, "width": 8, "rerank": 20.0, "residual": residual}
    x_adv = adversarial_transformation(model, x, y, eps=eps, generator=generator, **options)
    fooled = model(x_adv).argmax(1) != y
    assert not (fooled & ~possible).any()
    assert fooled[easy].float().mean() >= 0.9


@pytest.mark.slow
def test_it_fools_unseen_digits_far_more_often_than_noise(data_root: Path) -> None:
    place = "weights/interpretability_aware/mnist_small_normal.safetensors?arch=mnist_small_normal"
    model = load_model(f"{data_root / place}")
    batch = load_data(f"mnist:{data_root / 'mnist'}")[:256]
    x, y, unseen, label = batch.x[:128], batch.y[:128], batch.x[128:], batch.y[128:]
    network = train_generator(model, x, y, eps=0.2, steps=60, generator=Generator().manual_seed(0))
    x_adv = adversarial_transformation(model, unseen, label, eps=0.2, generator_network=network)
    signs = randn(unseen.shape).sign()
    noise = (unseen + 0.2 * signs).clamp(0, 1)
    by_network, by_noise = (model.predict(images).argmax(1) != label for images in (x_adv, noise))
    # Of the images that one fools and the other does not: by McNemar's test, far beyond chance.
    only_network, only_noise = int((by_network & ~by_noise).sum()), int((by_noise & ~by_network).sum())
    assert only_network - only_noise > 4 * (only_network + only_noise) ** 0.5
    assert by_network.float().mean() > 0.65


def test_a_network_that_was_kept_is_used_as_it_is(
    relu_model: Classifier, images: Tensor, generator: Generator, tmp_path: Path
) -> None:
    y = relu_model(images).argmax(1)
    network = train_generator(relu_model, images, y, eps=0.1, steps=3, width=4, generator=generator)
    network.save(tmp_path / "generator.safetensors")
    again = TransformationNetwork.load(tmp_path / "generator.safetensors")
    with relu_model.counting() as count:
        first, second = (
            adversarial_transformation(relu_model, images, y, eps=0.05, generator_network=n) for n in (network, again)
        )
    assert torch.equal(first, second)
    nearest = (images + (network(images) - images).clamp(-0.05, 0.05)).clamp(0, 1)
    assert torch.allclose(first, nearest, atol=1e-6)
    assert count.forwards == count.backwards == 0
    write_tensors(tmp_path / "other.safetensors", {"first.weight": rand(1)}, {})
    for name in ("none", "other"):
        with pytest.raises(InputError, match=name):
            TransformationNetwork.load(tmp_path / f"{name}.safetensors")


def test_fidelity_keeps_the_image(relu_model: Classifier, images: Tensor) -> None:
    y = relu_model(images).argmax(1)

    def distance(fidelity: float) -> float:
        network = train_generator(
            relu_model,
            images,
            y,
            eps=0.3,
            steps=30,
            step_size=0.01,
            width=4,
            fidelity=fidelity,
            generator=Generator().manual_seed(0),
        )
        return float((network(images) - images).square().mean())

    assert distance(10.0) < 0.1 * distance(0.0)


@pytest.mark.parametrize(
    "option", [{"rerank": 1.0}, {"fidelity": -1.0}, {"step_size": 0.0}, {"width": 0}, {"chunk": 0}]
)
def test_numbers_out_of_range(relu_model: Classifier, images: Tensor, option: dict[str, float]) -> None:
    with pytest.raises(InputError):
        adversarial_transformation(relu_model, images, torch.zeros(6, dtype=torch.int64), **option)


def test_a_network_that_makes_something_else(relu_model: Classifier, images: Tensor) -> None:
    y = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(InputError, match=r"12, 12\], got \(6, 3"):
        adversarial_transformation(relu_model, images, y, generator_network=nn.AvgPool2d(2))


def test_a_network_at_its_end_still_learns() -> None:
    """Far beyond the end of a tanh every entry still has a slope, and so a way back."""
    network = TransformationNetwork(1, width=4, reach=0.1, generator=Generator().manual_seed(0))
    with torch.no_grad():
        network.last.bias.fill_(-50.0)
    network(rand(2, 1, 8, 8, seed=1)).sum().backward()
    assert network.last.bias.grad is not None
    assert network.last.bias.grad.abs().min() > 1e-3 * 2 * 64
