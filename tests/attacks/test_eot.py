"""EOT against PGD where there is nothing to average, and against a slow loop where there is."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, seeded
from underfire.ascent.objectives import log_success, margin
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms.camera import camera

NOTHING = dict.fromkeys(("rotation", "perspective", "blur", "tone", "contrast", "brightness", "noise"), 0.0)


@pytest.fixture
def case(network):
    model = network("smooth", torch.float64)
    x = rand(4, 3, 10, 8, dtype=torch.float64)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_camera_it_is_pgd(case, norm):
    model, x, y = case
    options = {"norm": norm, "eps": 0.1, "steps": 6, "step_size": 0.03, "keep": "last"}
    plain = uf.attacks.pgd(model, x, y, objective=log_success(), random_start=False, **options)
    assert torch.allclose(uf.attacks.eot(model, x, y, samples=2, quality=None, **NOTHING, **options), plain)


def test_through_a_mirror_it_is_pgd_on_the_mirrored_model(case):
    model, x, y = case
    options = {"eps": 0.1, "steps": 6, "step_size": 0.03}

    class Mirrored(nn.Module):
        def forward(self, x):
            return model(x.flip(3))

    mirrored = Classifier(Mirrored())
    plain = uf.attacks.pgd(mirrored, x, y, objective=margin(), keep="last", random_start=False, **options)
    seen = uf.attacks.eot(model, x, y, transform=lambda x, g: x.flip(3), samples=1, objective=margin(), **options)
    assert torch.allclose(seen, plain)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_gradient_is_the_mean_over_photographs(case, targeted):
    """Targeted, the paper's objective: the mean log-probability of the goal; untargeted, that of any class but y."""
    model, x, y = case
    goal = (y + 1) % 4 if targeted else None
    strengths = {"rotation": 5.0, "blur": 0.5, "noise": 0.05, "quality": 60}
    steps, eps, samples, generator = 5, 0.1, 3, seeded(5)
    transform, x_t = camera(**strengths), x
    for step in range(steps):
        x_t = x_t.detach().requires_grad_()
        total = 0
        for _ in range(samples):
            p = F.softmax(model(transform(x_t, generator)), dim=1)
            p = p.gather(1, (y if goal is None else goal)[:, None])
            total = total + (p if targeted else 1 - p).log().sum() / samples
        (g,) = torch.autograd.grad(total, x_t)
        size = 5 * eps / steps * (1 - 0.9 * step / (steps - 1))
        x_t = (x_t.detach() + size * g.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    options = {"goal": goal, "eps": eps, "steps": steps, "samples": samples, "generator": seeded(5)}
    assert torch.allclose(uf.attacks.eot(model, x, y, **strengths, **options), x_t)


def test_it_costs_a_pass_per_photograph(case):
    model, x, y = case
    with model.counting() as count:
        uf.attacks.eot(model, x, y, steps=3, samples=5, generator=seeded(5))
    assert count.forwards == 15 * len(x)
    with pytest.raises(InputError, match="samples .* at least 1"):
        uf.attacks.eot(model, x, y, samples=0)
