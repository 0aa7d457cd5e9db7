"""Ensembles of sources: four ways to fuse them, against the fused gradient written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import build_network, rand, seeded
from underfire import attacks, models
from underfire.ascent.feature_terms import attention_distance, feature_distance, smooth_change
from underfire.ascent.moves import momentum
from underfire.ascent.objectives import Objective, cross_entropy
from underfire.ascent.step import Targets, value_and_grad
from underfire.domains import Domain
from underfire.errors import InputError, ModelError, Unsupported
from underfire.gradients.svre import svre
from underfire.model import Classifier, Ensemble

FUSES = ("logits", "probabilities", "losses", "gradients")
Y = torch.tensor([0, 1, 2])
WEIGHTS = (0.5, 0.3, 0.2)
EPS, STEPS = 0.06, 3


@pytest.fixture(scope="module")
def sources() -> list[Classifier]:
    return [build_network("smooth", torch.float64, seed=seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 0.2 + 0.6 * rand(3, 3, 8, 8, dtype=torch.float64)


def gradient(loss: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(loss, z, retain_graph=True)[0]


def by_hand(sources: list[Classifier], x: Tensor, fuse: str) -> Tensor:
    """The gradient of the cross-entropy of an ensemble, by the definition of each way to fuse."""
    z = x.clone().requires_grad_()
    logits = [model(z) for model in sources]
    if fuse == "logits":
        return gradient(
            F.cross_entropy(sum(w * a for w, a in zip(WEIGHTS, logits, strict=True)), Y, reduction="sum"), z
        )
    if fuse == "probabilities":
        shares = sum(w * a.softmax(1) for w, a in zip(WEIGHTS, logits, strict=True))
        return gradient(-shares.log().gather(1, Y[:, None]).sum(), z)
    slopes = [gradient(F.cross_entropy(a, Y, reduction="sum"), z) for a in logits]
    if fuse == "losses":
        return sum(w * g for w, g in zip(WEIGHTS, slopes, strict=True))
    sizes = [g.abs().sum((1, 2, 3), keepdim=True) for g in slopes]
    mean = sum(w * g / n for w, g, n in zip(WEIGHTS, slopes, sizes, strict=True))
    return mean * sum(w * n for w, n in zip(WEIGHTS, sizes, strict=True))


def plain(model: nn.Module, x: Tensor, objective: Objective | None = None) -> Tensor:
    """The gradient that attacks get."""
    targets = Targets(Y[: len(x)], None, torch.arange(len(x)))
    return value_and_grad(model, objective or cross_entropy(), x, targets)[2]


@pytest.mark.parametrize("fuse", FUSES)
def test_the_gradient_is_the_one_written_out_by_hand(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    model = models.ensemble(sources, fuse, weights=[5, 3, 2])
    assert torch.allclose(plain(model, x), by_hand(sources, x, fuse), rtol=1e-9)


@pytest.mark.parametrize("fuse", FUSES)
def test_one_source_is_that_source(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    model = models.ensemble(sources[:1], fuse)
    assert torch.allclose(model(x).softmax(1), sources[0](x).softmax(1))
    assert torch.allclose(plain(model, x), plain(sources[0], x))
    for name in ("mi_fgsm", "pgd"):
        ours, theirs = (uf.find("attack", name)(m, x, Y, eps=EPS, steps=STEPS) for m in (model, sources[0]))
        assert torch.allclose(ours, theirs)


def test_the_answer_is_the_mean_of_logits_or_of_probabilities(sources: list[Classifier], x: Tensor) -> None:
    logits = [model(x).detach() for model in sources]
    for fuse in ("logits", "losses", "gradients"):
        assert torch.allclose(models.ensemble(sources, fuse)(x), torch.stack(logits).mean(0))
    found = models.ensemble(sources, "probabilities")(x).softmax(1)
    assert torch.allclose(found, torch.stack([a.softmax(1) for a in logits]).mean(0))


@pytest.mark.parametrize("fuse", FUSES)
def test_an_attack_fools_every_source(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    model = models.ensemble(sources, fuse)
    y = model(x).argmax(1)
    before = [F.cross_entropy(one(x), y) for one in sources]
    x_adv = attacks.mi_fgsm(model, x, y, eps=EPS, steps=STEPS)
    assert all(F.cross_entropy(one(x_adv), y) > loss for one, loss in zip(sources, before, strict=True))


@pytest.mark.parametrize("fuse", ["losses", "gradients"])
@pytest.mark.parametrize("name", ["apgd", "carlini_wagner", "fmn", "uap", "eot", "square"])
def test_every_attack_on_an_objective_takes_an_ensemble_of_losses(
    sources: list[Classifier], x: Tensor, name: str, fuse: str
) -> None:
    card = uf.find("attack", name)
    quick = {"steps": 3, "binary_search_steps": 1, "queries": 20, "step_size": 0.05, "c": 10.0, "samples": 2}
    options = {key: value for key, value in quick.items() if key in card.options}
    assert (
        card(models.ensemble(sources, fuse), x, Y, eps=2.0 if name == "carlini_wagner" else EPS, **options).shape
        == x.shape
    )


@pytest.mark.parametrize("fuse", ["losses", "gradients"])
def test_an_attack_that_differentiates_logits_refuses_losses(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    with pytest.raises(Unsupported, match="fuse='logits'"):
        attacks.deepfool(models.ensemble(sources, fuse), x, Y)


@pytest.mark.parametrize("fuse", FUSES)
def test_terms_on_layers_read_the_layers_of_each_source(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    objective = cross_entropy() + feature_distance() + smooth_change() + attention_distance()
    x_adv = attacks.recipe(models.ensemble(sources, fuse), x, Y, eps=EPS, steps=STEPS, objective=objective)
    assert 0 < (x_adv - x).abs().max() <= EPS + 1e-9


@pytest.mark.parametrize("fuse", FUSES)
def test_passes_are_counted_once(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    model = models.ensemble(sources, fuse)
    with model.counting() as count:
        attacks.mi_fgsm(model, x, Y, eps=EPS, steps=STEPS)
    assert (count.forwards, count.backwards) == (STEPS * len(x), STEPS * len(x))


class Fixed(nn.Module):
    """A network that takes images of one size only."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * side * side, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


@pytest.mark.parametrize("fuse", FUSES)
def test_sources_of_other_sizes_are_resized_when_asked(x: Tensor, fuse: str) -> None:
    big, small = (Classifier(Fixed(side), size=(side, side)) for side in (8, 16))
    with pytest.raises(ModelError, match="16 x 16.*8 x"):
        models.ensemble([big, small], fuse)
    model = models.ensemble([big, small], fuse, resize=True)
    x_adv = attacks.bim(model, x, Y, eps=EPS, steps=STEPS)
    assert x_adv.shape == x.shape and not torch.equal(x_adv, x)
    shown = F.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    if fuse == "logits":
        assert torch.allclose(model(x), (big(x) + small(shown)) / 2)


def test_other_classes_or_kinds_of_input_are_refused(x: Tensor) -> None:
    one, other = (Classifier(build_network().module, labels=names) for names in ("abcd", "abxd"))
    with pytest.raises(ModelError, match="source 1 .*'x', not 'c'"):
        models.ensemble([one, other])
    with pytest.raises(ModelError, match="4 classes.*6"):
        models.ensemble([Classifier(build_network(classes=6).module, labels="abcdef"), one])
    for fuse in ("logits", "losses"):
        with pytest.raises(ModelError, match="source 1 has 6 classes"):
            attacks.bim(models.ensemble([build_network(), build_network(classes=6)], fuse), x.float(), Y)
    with pytest.raises(ModelError, match="'table'"):
        models.ensemble([build_network(), Classifier(nn.Linear(3, 4), domain=Domain("table", 2))])
    with pytest.raises(InputError, match="at least one"):
        models.ensemble([])
    with pytest.raises(InputError, match="2 positive numbers"):
        models.ensemble([one, one], weights=[1, -1])
    with pytest.raises(Unsupported, match="median"):
        models.ensemble([one], "median")


def test_an_ensemble_opens_uris() -> None:
    model = models.ensemble(["zoo:cluttered_digits", models.load("zoo:cluttered_digits")])
    assert isinstance(model, Ensemble) and model.labels == tuple("0123456789")
    body = model.members[0].module
    others = [[Classifier(body, mean=0.1), body], [body, body]]
    marks = [models.fingerprint(models.ensemble(members, fuse)) for members in others for fuse in FUSES]
    assert len(set(marks)) == len(marks)


def slow_svre(sources: list[Classifier], x: Tensor, y: Tensor, generator: torch.Generator, inner: int) -> Tensor:
    """Xiong et al. 2022, algorithm 1, with an ensemble in logits."""

    def slope(model: nn.Module, z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)[0]

    def clip(z: Tensor) -> Tensor:
        return z.clamp(x - EPS, x + EPS).clamp(0, 1)

    def unit(g: Tensor) -> Tensor:
        return g / g.abs().sum((1, 2, 3), keepdim=True)

    mean = Classifier(nn.Identity())
    mean.forward = lambda z: sum(model(z) for model in sources) / len(sources)
    x_t, outer, alpha = x, torch.zeros_like(x), EPS / STEPS
    for _ in range(STEPS):
        whole, ahead, total = slope(mean, x_t), x_t, torch.zeros_like(x)
        for k in torch.randint(len(sources), (inner,), generator=generator).tolist():
            total = total + unit(slope(sources[k], ahead) - (slope(sources[k], x_t) - whole))
            ahead = clip(ahead + alpha * total.sign())
        outer = outer + unit(total)
        x_t = clip(x_t + alpha * outer.sign())
    return x_t


@pytest.mark.parametrize("inner", [None, 5])
def test_svre_is_the_paper(sources: list[Classifier], x: Tensor, inner: int | None) -> None:
    options = {"objective": cross_entropy(), "estimate": svre(inner), "move": momentum(), "keep": "last"}
    ours = attacks.recipe(models.ensemble(sources), x, Y, eps=EPS, steps=STEPS, generator=seeded(2), **options)
    slow = slow_svre(sources, x, Y, seeded(2), inner or 12)
    assert (ours - slow).abs().max() < 1e-9


@pytest.mark.parametrize("fuse", FUSES)
def test_svre_goes_with_every_way_to_fuse_and_every_part(sources: list[Classifier], x: Tensor, fuse: str) -> None:
    objective = cross_entropy() + feature_distance() + attention_distance()
    options = {"estimate": "svre(3)", "views": "scale_copies(2)", "smooth": "translation_kernel(3)"}
    made = {"objective": objective, **uf.find("attack", "recipe").check(options)}
    x_adv = attacks.recipe(models.ensemble(sources, fuse), x, Y, eps=EPS, steps=2, keep="success", **made)
    assert 0 < (x_adv - x).abs().max() <= EPS + 1e-9


def test_svre_needs_several_sources(sources: list[Classifier], x: Tensor) -> None:
    with pytest.raises(Unsupported, match="ensemble"):
        attacks.recipe(sources[0], x, Y, eps=EPS, estimate=svre())
    with pytest.raises(InputError, match="inner_steps"):
        svre(0)
