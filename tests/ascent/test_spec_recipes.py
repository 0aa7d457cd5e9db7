"""Transfer attacks written in a spec file, against slow word-for-word versions of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import build_network, rand, seeded
from underfire.ascent.parts import parse_call
from underfire.audit.methods import attack_of
from underfire.audit.spec import load_spec
from underfire.errors import InputError

EPS, STEPS = 0.06, 5
SPEC = """
model: builtin:digits
data: digits
attacks:
  - name: recipe
    label: SI-NI-TI-DIM
    objective: cross_entropy
    views: [scale_copies(5), {name: input_diversity, probability: 0.5, rate: 1.25}]
    smooth: translation_kernel(7)
    move: look_ahead(1.0)
    steps: 5
    keep: last
    eps: 0.06
  - name: recipe
    label: MI-DI-TI
    objective: cross_entropy
    views: input_diversity(0.5, rate=1.25)
    smooth: [translation_kernel(5)]
    move: {name: momentum, decay: 0.9}
    steps: 5
    keep: last
    eps: 0.06
  - name: recipe
    label: VMI
    objective: cross_entropy
    estimate: variance_tuned(4, radius=9/100)
    move: momentum
    steps: 5
    keep: last
    eps: 0.06
"""


def kernel(size: int) -> Tensor:
    """The Gaussian of Dong et al. 2019, whose sides are three standard deviations from its middle."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-((offset / (size // 2) * 3) ** 2) / 2)
    square = torch.outer(line, line)
    return (square / square.sum()).expand(3, 1, size, size)


def diverse(x: Tensor, generator: torch.Generator) -> Tensor:
    """D(x; p) of Xie et al. 2019 with p = 1/2 and sides of 5/4."""
    if float(torch.rand((), generator=generator)) >= 0.5:
        return x
    low, high = x.shape[2], round(1.25 * x.shape[2])
    r = int(torch.randint(low, high, (), generator=generator))
    x = F.interpolate(x, (r, r), mode="nearest")
    top = int(torch.randint(0, high - r + 1, (), generator=generator))
    left = int(torch.randint(0, high - r + 1, (), generator=generator))
    return F.pad(x, (left, high - r - left, top, high - r - top))


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


def clip(x_t: Tensor, x: Tensor) -> Tensor:
    return torch.min(torch.max(x_t, x - EPS), x + EPS).clamp(0, 1).detach()


def l1(g: Tensor) -> Tensor:
    return g / g.abs().sum((1, 2, 3), keepdim=True)


def slow_si_ni_ti_dim(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    x_t, g, alpha = x, torch.zeros_like(x), EPS / STEPS
    for _ in range(STEPS):
        x_nes = (x_t + alpha * g).detach().requires_grad_()
        loss = sum(F.cross_entropy(model(diverse(x_nes / 2**i, generator)), y, reduction="sum") for i in range(5)) / 5
        slope = torch.autograd.grad(loss, x_nes)[0]
        g = g + l1(F.conv2d(slope, kernel(7), padding=3, groups=3))
        x_t = clip(x_t + alpha * g.sign(), x)
    return x_t


def slow_mi_di_ti(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    x_t, g = x, torch.zeros_like(x)
    for _ in range(STEPS):
        z = x_t.detach().requires_grad_()
        slope = torch.autograd.grad(F.cross_entropy(model(diverse(z, generator)), y, reduction="sum"), z)[0]
        g = 0.9 * g + l1(F.conv2d(slope, kernel(5), padding=2, groups=3))
        x_t = clip(x_t + EPS / STEPS * g.sign(), x)
    return x_t


def slow_vmi(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Wang and He 2021, algorithm 1."""
    x_t, g, v = x, torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(STEPS):
        slope = gradient(model, x_t, y)
        g = g + l1(slope + v)
        around = [
            gradient(model, x_t + 0.09 * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1), y)
            for _ in range(4)
        ]
        v = sum(around) / 4 - slope
        x_t = clip(x_t + EPS / STEPS * g.sign(), x)
    return x_t


SLOW = {"SI-NI-TI-DIM": slow_si_ni_ti_dim, "MI-DI-TI": slow_mi_di_ti, "VMI": slow_vmi}


@pytest.mark.parametrize("label", SLOW)
def test_a_spec_file_says_what_the_papers_say(tmp_path: Path, label: str) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    entries = {entry.label: entry for entry in load_spec(tmp_path / "spec.yaml").attacks}
    model, x = build_network("smooth", torch.float64), rand(3, 3, 16, 16, dtype=torch.float64)
    y = torch.tensor([0, 1, 2])
    ours = attack_of(entries[label], EPS)(model, x, y, generator=seeded(3))
    assert (ours - SLOW[label](model, x, y, seeded(3))).abs().max() < 1e-6
    assert (ours - x).abs().max() > 0.9 * EPS


def test_vmi_fgsm_is_the_recipe() -> None:
    model, x, y = build_network("smooth", torch.float64), rand(3, 3, 16, 16, dtype=torch.float64), torch.arange(3)
    options = {"eps": EPS, "steps": STEPS, "samples": 4, "objective": uf.ascent.objectives.cross_entropy()}
    ours = uf.attacks.vmi_fgsm(model, x, y, **options, generator=seeded(3))
    assert (ours - slow_vmi(model, x, y, seeded(3))).abs().max() < 1e-6


def test_variance_tuning_goes_with_retirement_and_restarts() -> None:
    """Successes leave, and their memory with them; every success of one run stays a success with more."""
    model, x = build_network(), rand(16, 3, 8, 8)
    y = model(x).argmax(1)
    with model.counting() as once:
        one = uf.attacks.vmi_fgsm(model, x, y, eps=0.2, samples=3, keep="success")
    with model.counting() as whole:
        uf.attacks.vmi_fgsm(model, x, y, eps=0.2, samples=3, keep="best")
    three = uf.attacks.vmi_fgsm(model, x, y, eps=0.2, samples=3, keep="success", restarts=3)
    fooled, more = (model(v).argmax(1) != y for v in (one, three))
    assert fooled.any()
    assert (more | ~fooled).all()
    assert once.backwards < whole.backwards
    assert (three - x).abs().max() <= 0.2 + 1e-6


def slow_acg(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Yamamura et al. 2022, algorithm 1, for one image."""

    def f(z: Tensor) -> tuple[float, Tensor]:
        z = z.detach().requires_grad_()
        logits = model(z)
        value = logits.scatter(1, y[:, None], -torch.inf).amax() - logits[0, y]
        return float(value.detach()), torch.autograd.grad(value, z)[0]

    points = [0, *uf.ascent.step_rules.checkpoints(steps)]
    eta, rises, halved, record = 2 * eps, 0, True, -float("inf")
    z, (value, g) = x, f(x)
    s_old = g_old = torch.zeros_like(x)
    top, best = value, (z, g, g_old, s_old)
    for k in range(steps):
        change = g_old - g
        bottom = float((s_old * change).sum())
        beta = float((-g * change).sum()) / bottom if bottom else 0.0
        s = g + beta * s_old
        z = torch.min(torch.max(z + eta * s.sign(), x - eps), x + eps).clamp(0, 1)
        g_old, s_old, before = g, s, value
        value, g = f(z)
        rises += value > before
        if value > top:
            top, best = value, (z, g, g_old, s_old)
        if k + 1 in points and k + 1 < steps:
            period = k + 1 - points[points.index(k + 1) - 1]
            stalls = rises <= 0.75 * period or (not halved and record >= top)
            if stalls:
                eta, (z, g, g_old, s_old) = eta / 2, best
            rises, halved, record = 0, stalls, top
    return best[0]


def test_acg_is_the_paper_and_leaves_apgd_alone() -> None:
    model, x = build_network("smooth", torch.float64), rand(3, 3, 8, 8, dtype=torch.float64)
    y = model(x).argmax(1)
    ours = uf.attacks.acg(model, x, y, eps=0.01, steps=25)
    for i in range(len(x)):
        slow = slow_acg(model, x[i : i + 1], y[i : i + 1], 0.01, 25)
        assert (ours[i : i + 1] - slow).abs().max() < 1e-6


def test_the_grammar_reads_names_and_literals_only() -> None:
    assert parse_call("plain") == ("plain", [], {})
    assert parse_call("f(1, 8/255, sizes={0: 0.1})") == ("f", [1, 8 / 255], {"sizes": {0: 0.1}})
    for text in ("f(g(1))", "a.b", "f(**{})", "1 + 2", "f(x)", "", "__import__('os').getcwd()"):
        with pytest.raises(InputError):
            parse_call(text)
    with pytest.raises(InputError, match="quotes"):
        parse_call("f(1")  # what YAML leaves of an unquoted f(1, 2) in a list


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"views": "scale_copie(5)"}, "scale_copies"),
        ({"views": "momentum"}, "momentum"),
        ({"move": "momentum(1, 2)"}, "decay"),
        ({"move": {"decay": 1.0}}, "name"),
        ({"smooth": "translation_kernel(4)"}, "odd"),
        ({"move": "momentum(decline=1)"}, "decline"),
        ({"move": f"momentum({'9' * 400})"}, "decay"),
        ({"move": "momentum(1e999)"}, "decay"),
        ({"move": {"name": "momentum", "decay": float("nan")}}, "decay"),
        ({"move": "momentum(decay=1, decay=2)"}, "not a part"),
        ({"move": {"name": "momentum", 5: 5}}, "5"),
        ({"views": f"scale_copies({'-' * 5000}1)"}, "not a part"),
        ({"restarts": "many"}, "restarts"),
    ],
)
def test_a_part_that_is_not_there_is_named(options: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        uf.find("attack", "recipe").check(options)
