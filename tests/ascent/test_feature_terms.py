"""TAP and ATA: terms on inner layers, against slow versions of the papers, one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import build_network, rand, seeded
from underfire.ascent.feature_terms import attention_distance, attention_maps, feature_distance, smooth_change
from underfire.ascent.objective import Objective
from underfire.ascent.objectives import cross_entropy
from underfire.ascent.step import Targets
from underfire.attribution.feature_maps import layouts_of
from underfire.errors import InputError, ModelError, Unsupported
from underfire.gradients.estimators import nes, variance_tuned
from underfire.gradients.smoothing import translation_kernel
from underfire.gradients.views import input_diversity, scale_copies
from underfire.interpreters import grad_cam
from underfire.model import Classifier

EPS, STEPS = 0.06, 4
TAP = cross_entropy() + feature_distance() + smooth_change()


@pytest.fixture(scope="module")
def model() -> Classifier:
    return build_network("smooth", torch.float64)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 0.2 + 0.6 * rand(3, 3, 12, 12, dtype=torch.float64)


Y = torch.tensor([0, 1, 2])


def run(model: nn.Module, x: Tensor, y: Tensor, objective: Objective, **options: object) -> Tensor:
    return uf.attacks.recipe(model, x, y, eps=EPS, steps=STEPS, objective=objective, **{"keep": "last", **options})


def features(model: Classifier, x: Tensor, layers: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """The outputs of layers of the sequential body, and the logits."""
    z, found = (x - 0.5) / 0.25, []
    for number, layer in enumerate(model.module):
        z = layer(z)
        if number in layers:
            found.append(z)
    return found, z


def slow_tap(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Zhou et al. 2018 with the constants that three other codes share, for one image."""

    def root(a: Tensor) -> Tensor:
        return a.sign() * a.abs() ** 0.5

    before, _ = features(model, x, (1, 3))
    x_t = x
    for _ in range(STEPS):
        z = x_t.detach().requires_grad_()
        after, logits = features(model, z, (1, 3))
        loss = F.cross_entropy(logits, y)
        for a, b in zip(before, after, strict=True):
            loss = loss + 0.005 * (root(a.detach()) - root(b)).norm() ** 2
        loss = loss + 0.01 * F.avg_pool2d(z - x, 3).abs().sum()
        g = torch.autograd.grad(loss, z)[0]
        x_t = (x_t + EPS / STEPS * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return x_t


def slow_ata(model: Classifier, x: Tensor, y: Tensor, weight: float) -> Tensor:
    """Algorithm 1 of seed topic ATA for one image: the attention weights are part of the differentiated graph."""

    def maps(z: Tensor) -> tuple[list[Tensor], Tensor]:
        layers, logits = features(model, z, (1, 3))
        found = []
        for a in layers:
            alpha = torch.autograd.grad(logits[0, y[0]], a, create_graph=True)[0].mean((2, 3), keepdim=True)
            found.append(F.relu((alpha * a).sum(1)))
        return found, logits

    before = [h.detach() for h in maps(x.detach().requires_grad_())[0]]
    x_t = x
    for k in range(STEPS):
        z = x_t.detach().requires_grad_()
        after, logits = maps(z)
        loss = F.cross_entropy(logits, y)
        if k:  # at the clean image, the length has no gradient
            loss = loss + weight * sum((a - b).norm() for a, b in zip(after, before, strict=True))
        g = torch.autograd.grad(loss, z)[0]
        x_t = (x_t + EPS / STEPS * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return x_t


def test_tap_is_the_paper_image_by_image(model: Classifier, x: Tensor) -> None:
    objective = cross_entropy() + feature_distance(layers=("1", "3")) + smooth_change()
    ours = run(model, x, Y, objective)
    for i in range(3):
        assert torch.allclose(ours[i : i + 1], slow_tap(model, x[i : i + 1], Y[i : i + 1]), atol=1e-9)


def test_ata_is_the_paper_image_by_image(model: Classifier, x: Tensor) -> None:
    ours = run(model, x, Y, cross_entropy() + attention_distance(30.0, layers=("1", "3")))
    for i in range(3):
        assert torch.allclose(ours[i : i + 1], slow_ata(model, x[i : i + 1], Y[i : i + 1], 30.0), atol=1e-9)
    assert not torch.equal(ours, run(model, x, Y, cross_entropy()))


@pytest.mark.parametrize("layer", ["1", "3", None])
def test_the_attention_map_is_grad_cam(model: Classifier, x: Tensor, layer: str | None) -> None:
    found = attention_maps(model, x, Y, layouts_of(model, x, layer))
    assert torch.allclose(found[0], grad_cam(model, x, Y, layer=layer))


def test_the_gradient_passes_through_the_attention_weights(model: Classifier, x: Tensor) -> None:
    layouts = layouts_of(model, x, "1")
    z = x.clone().requires_grad_()
    direction = rand(*x.shape, dtype=x.dtype) - 0.5
    (slope,) = torch.autograd.grad(sum(attention_maps(model, z, Y, layouts)).square().sum(), z)
    ahead, behind = (
        float(sum(attention_maps(model, x + h * direction, Y, layouts)).square().sum()) for h in (1e-5, -1e-5)
    )
    assert float((slope * direction).sum()) == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


COMPOSITIONS = {
    "tap": {"objective": TAP},
    "tap ata": {"objective": TAP + attention_distance(5.0)},
    "si di ti vmi": {
        "objective": TAP + attention_distance(5.0),
        "views": uf.gradients.views.compose(scale_copies(2), input_diversity(1.0, 1.3)),
        "smooth": translation_kernel(3),
        "estimate": variance_tuned(2, 0.05),
    },
    "nes": {"objective": TAP + attention_distance(5.0), "estimate": nes(4, 0.01)},
    "best of restarts": {"objective": TAP + attention_distance(5.0), "keep": "best", "restarts": 2},
    "success": {"objective": TAP + attention_distance(5.0), "keep": "success"},
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_terms_compose_with_every_part(name: str) -> None:
    small, images = build_network(), rand(4, 3, 12, 12)
    x_adv = run(small, images, torch.tensor([0, 1, 2, 3]), **COMPOSITIONS[name], generator=seeded(1))
    assert x_adv.isfinite().all() and (x_adv - images).abs().max() <= EPS + 1e-6
    assert not torch.equal(x_adv, images)


@pytest.mark.parametrize("objective", [TAP, TAP + attention_distance(5.0)])
def test_a_batch_is_its_images(model: Classifier, x: Tensor, objective: Objective) -> None:
    together = run(model, x, Y, objective)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], run(model, x[i : i + 1], Y[i : i + 1], objective), atol=1e-9)


@pytest.mark.parametrize("objective", [TAP, TAP + attention_distance()])
def test_features_and_logits_come_from_one_pass(objective: Objective) -> None:
    small, images = build_network(), rand(2, 3, 12, 12)
    passes: list[int] = []
    run(small, images, Y[:2], objective)  # finds the layers
    handle = small.module[0].register_forward_hook(lambda _, __, out: passes.append(len(out)))
    run(small, images, Y[:2], objective)
    handle.remove()
    terms = 2 if len(objective.terms) > 3 else 1  # each kind of term looks at the clean images once
    assert len(passes) == STEPS + terms


def test_features_that_are_zero_have_a_gradient_of_zero() -> None:
    small = build_network()
    with torch.no_grad():
        small.module[0].bias[:4] = -100.0  # half of the first feature maps are zero
    images = 0.2 + 0.6 * rand(2, 3, 12, 12)
    x_adv = run(small, images, Y[:2], feature_distance(layers=("1", "3")) + cross_entropy())
    assert (x_adv != images).float().mean() > 0.9  # a gradient that is NaN would move nothing


def test_layers_without_space_count_as_features(model: Classifier, x: Tensor) -> None:
    assert not torch.equal(run(model, x, Y, feature_distance(layers=("5",)) + cross_entropy()), x)


def test_a_spec_adds_terms_of_a_list() -> None:
    card = uf.find("attack", "recipe")
    texts = ["cross_entropy", "feature_distance(0.005, 0.5)", {"name": "smooth_change", "pool": 2}]
    made = card.check({"objective": texts, "steps": 2})
    assert len(made["objective"].terms) == 3
    small, images = build_network(), rand(2, 3, 12, 12)
    expected = cross_entropy() + feature_distance() + smooth_change(pool=2)
    ours, slow = (card(small, images, Y[:2], steps=2, objective=o) for o in (made["objective"], expected))
    assert torch.equal(ours, slow)


def test_what_the_terms_refuse(model: Classifier, x: Tensor) -> None:
    with pytest.raises(InputError, match="power"):
        feature_distance(power=0)
    with pytest.raises(Unsupported, match="probability"):
        attention_distance(output="odds")
    with pytest.raises(InputError, match="13 x 13"):
        run(model, x, Y, smooth_change(pool=13))
    with pytest.raises(ModelError, match="'nowhere'"):
        run(model, x, Y, feature_distance(layers=("nowhere",)))
    with pytest.raises(Unsupported, match="recipe"):
        TAP(Targets(Y, None, torch.arange(3)).step(model, x, model(x)))
