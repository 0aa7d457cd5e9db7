"""Interpretability-aware training against a slow repetition with class activation maps written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, seeded
from tests.training.toys import close, descend, plan, seed_of, slope_at
from underfire.errors import InputError, Unsupported
from underfire.training.explaining import explainer
from underfire.training.live_weights import live_weights

X, Y = rand(6, 1, 5, 5, seed=3, dtype=torch.float64), torch.arange(6) % 3
EPS, STEPS, SIZE, GAMMA = 0.1, 2, 0.06, 0.3


def network(seed: int = 0) -> nn.Sequential:
    """A smooth network that ends in global average pooling and a linear layer without bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = (nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3, bias=False))
        return nn.Sequential(*parts).double().eval()


def outputs(body: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the class activation maps of all classes, `[B, K, h, w]`."""
    features = body[1](body[0](x))
    return body(x), torch.einsum("ck,bkhw->bchw", body[4].weight, features)


def distance(logits: Tensor, maps_adv: Tensor, maps: Tensor, y: Tensor, others: str) -> Tensor:
    """The discrepancy as the authors' code has it, one image at a time."""
    found = []
    for i, label in enumerate(y.tolist()):
        apart = (maps_adv[i] - maps[i]).abs().sum((1, 2))
        rest = [k for k in range(3) if k != label]
        if others == "likeliest":
            rest = rest[:0]
        shares = logits[i, rest].softmax(0) if others == "weighted" else torch.zeros(0, dtype=logits.dtype)
        found.append(apart[label] + (shares * apart[rest]).sum() if len(shares) else apart[label])
    return torch.stack(found)


@pytest.mark.parametrize("variant", ["int_one_class", "int", "int_adv", "int2", "int2_adv"])
def test_every_variant_is_the_loop_of_the_paper(variant: str) -> None:
    options: dict[str, Any] = {"eps": EPS, "steps": STEPS, "step_size": SIZE, "gamma": GAMMA, "ramp": (0.0, 0.0)}
    made = uf.training.interpretability_aware(
        network(), (X, Y), variant=variant, **options, plan=plan(batch_size=3), generator=seeded(1)
    )
    slow, generator = network(), seed_of(1)
    others = "none" if variant == "int_one_class" else "weighted"
    for rows in torch.randperm(6, generator=generator).split(3):
        x, y = X[rows], Y[rows]
        maps = outputs(slow, x)[1].detach()

        def aim(z: Tensor, y: Tensor = y, maps: Tensor = maps) -> Tensor:
            logits, maps_adv = outputs(slow, z)
            entropy = F.cross_entropy(logits, y, reduction="sum")
            if variant.startswith("int2"):
                return entropy
            apart = distance(logits, maps_adv, maps, y, others).sum()
            return entropy + GAMMA * apart if variant == "int_adv" else apart

        z = (x + EPS * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            z = (x + (z + SIZE * slope_at(z, aim).sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        (logits, maps), (logits_adv, maps_adv) = outputs(slow, x), outputs(slow, z)
        entropy = F.cross_entropy(logits_adv if variant.endswith("adv") else logits, y)
        descend(slow, entropy + GAMMA * distance(logits_adv, maps_adv, maps, y, others).mean())
    assert close(made, slow)


def test_eps_rises_as_the_ramp_says() -> None:
    """With eps 0 up to the last step, the discrepancy is 0 and the training is the standard one."""
    made = uf.training.interpretability_aware(network(), (X, Y), ramp=(1.0, 1.0), plan=plan(batch_size=3))
    assert close(made, uf.training.standard(network(), (X, Y), plan=plan(batch_size=3)))


@pytest.mark.parametrize(("variant", "clean"), [("int", 1), ("int_one_class", 1), ("int2", 0)])
def test_no_pass_is_wasted(variant: str, clean: int) -> None:
    """The maps of the clean images once, two passes for each step of the attack, and two for the weights."""
    forwards, backwards = list[int](), list[int]()
    body = network()

    def note(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        forwards.append(len(inputs[0]))
        if output.requires_grad:
            output.register_hook(lambda g: backwards.append(len(g)))

    body[0].register_forward_hook(note)
    counts = []
    for epochs in (1, 2):
        forwards.clear(), backwards.clear()
        uf.training.interpretability_aware(
            body, (X, Y), variant=variant, eps=EPS, steps=3, ramp=(0.0, 0.0), plan=plan(batch_size=3, epochs=epochs)
        )
        counts.append((sum(forwards), sum(backwards)))
    (f1, b1), (f2, b2) = counts
    assert (f2 - f1, b2 - b1) == (6 * (clean + 3 + 2), 6 * (3 + 2))


@pytest.mark.parametrize("interpreter", ["cam", "grad_cam", "gradient", {"name": "integrated_gradients", "steps": 3}])
def test_the_gradient_by_the_weights_is_that_of_finite_differences(interpreter: Any) -> None:
    explain, body, x, y = explainer(interpreter, 2), network(), X[:2], Y[:2]
    model = uf.Classifier(body)
    with live_weights(model):
        m = explain.explain(model, x.clone().requires_grad_(True), y)
    (slope,) = torch.autograd.grad(m.square().sum(), body[0].weight)
    values = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            body[0].weight[1, 0, 2, 0] += shift
            values.append(float(explain.explain(model, x, y).square().sum()))
            body[0].weight[1, 0, 2, 0] -= shift
    assert float(slope[1, 0, 2, 0]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)
    assert list(body.state_dict()) == list(network().state_dict()) and body[0].weight.is_leaf


def test_any_differentiable_interpreter_may_take_the_place_of_cam() -> None:
    options: dict[str, Any] = {"others": "likeliest", "eps": EPS, "steps": 1, "ramp": (0.0, 0.0), "gamma": 10.0}
    made = [
        uf.training.interpretability_aware(network(), (X, Y), interpreter=one, **options, plan=plan(batch_size=6))
        for one in ("cam", "gradient", "grad_cam")
    ]
    assert not close(made[0], made[1]) and not close(made[0], made[2])


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"interpreter": "camm"}, InputError, "'cam'"),
        ({"interpreter": {"name": "cam", "layer": "x"}}, InputError, "'layer'"),
        ({"interpreter": lambda model, x, y: x.detach()}, Unsupported, "no gradient"),
        ({"interpreter": "nearest_neighbours"}, Unsupported, "not differentiable"),
        ({"variant": "int3"}, InputError, "'int2'"),
        ({"ramp": (0.5, 0.2)}, InputError, "ramp"),
        ({"gamma": -1.0}, InputError, "gamma"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(options: dict[str, Any], error: Any, named: str) -> None:
    with pytest.raises(error, match=named) as found:
        uf.training.interpretability_aware(network(), (X, Y), **options)
    assert "\n" not in str(found.value)


def test_a_map_that_is_computed_twice_cannot_be_trained() -> None:
    model = uf.models.load("zoo:cluttered_digits")
    batch = uf.data.load("cluttered-digits:train", n=20)[:]
    with pytest.raises(Unsupported, match="lime computes parts"):
        uf.training.interpretability_aware(model, (batch.x, batch.y), interpreter="lime", eps=8 / 255)
