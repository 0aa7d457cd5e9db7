"""FullGrad: its terms sum to the logit, and its map is that of the paper and of another library."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.interpreters.test_class_activation import peer  # noqa: F401
from tests.interpreters.test_lrp import Plain, Residual, build, logit, x_of
from tests.networks import randn
from underfire.attribution.bias_terms import full_gradient
from underfire.errors import Unsupported
from underfire.interpreters import full_grad
from underfire.interpreters.full_grad import detailed

Y = torch.tensor([0, 1, 3])


class Gates(nn.Module):
    """Smooth activations, a gate, group norm and a network that begins with a normalisation of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.gate = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8, eps=0), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        z = F.silu(self.norm(self.stem((x - 0.4) / 0.3)), inplace=True)
        z = F.leaky_relu(z) * F.hardsigmoid(self.gate(z.mean((2, 3))))[:, :, None, None]
        return self.head(F.hardtanh(z, 0, 0.3).mean((2, 3)))


@pytest.mark.parametrize("kind", [Plain, Residual, Gates])
def test_all_terms_sum_to_the_logit(kind):
    model, x = build(kind), x_of()
    terms = full_gradient(model, x, Y)
    found, of_image = terms.logit, terms.of_image
    total = of_image.sum((1, 2, 3)) + sum(term.flatten(1).sum(1) for term in terms.of_biases)
    assert torch.allclose(found, logit(model, x)) and torch.allclose(total, found, atol=1e-9)
    assert float(detailed(model, x, Y)[1]["completeness_gap"].max()) < 1e-9
    assert not torch.allclose(of_image.sum((1, 2, 3)), found, atol=1e-3)


def test_the_terms_of_biases_are_biases_times_gradients():
    """That of a batch norm has the bias that it adds to its output for an input of zero."""
    model, x = build(Residual), x_of()
    body, read = model.module, {}
    for name, layer in body.named_modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, out, name=name: read.update({name: out.clone()}) or read[name])
    total = model(x.requires_grad_()).gather(1, Y[:, None]).sum()
    names = ["stem", "norm", "body_norm", "head"]
    gradients = dict(zip(names, torch.autograd.grad(total, [read[n] for n in names]), strict=True))
    zero = torch.zeros(1, 6, 1, 1, dtype=x.dtype)
    biases = {n: getattr(body, n)(zero) for n in ("norm", "body_norm")} | {"head": body.head.bias[None]}
    biases["stem"] = body.stem.bias.view(1, -1, 1, 1)
    terms = full_gradient(model, x.detach(), Y).of_biases
    for name in names:
        wanted = biases[name] * gradients[name]
        assert any(t.shape == wanted.shape and torch.allclose(t, wanted) for t in terms), name


def test_the_map_by_its_equation():
    model, x = build(Plain), x_of()
    _, of_image, of_biases, of_maps = full_gradient(model, x, Y)
    assert len(of_biases) == 4 and len(of_maps) == 2
    for rescale, places in (("layer", (1, 2, 3)), ("channel", (2, 3))):
        wanted = torch.zeros(3, 1, 6, 6, dtype=x.dtype)
        for term in (of_image, *of_maps):
            size = term.abs() - term.abs().amin(places, keepdim=True)
            size = (size / (size.amax(places, keepdim=True) + 1e-30)).sum(1, keepdim=True)
            wanted += F.interpolate(size, (6, 6), mode="bilinear")
        shown = full_grad(model, x, Y, rescale=rescale)
        assert torch.allclose(shown, wanted) and shown.amin() >= 0


def test_equal_to_pytorch_grad_cam(peer):  # noqa: F811
    """On one convolution, because it pairs the biases with the layers in an order of its own."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4)).eval()
    x = x_of().float()
    seen = peer("FullGrad", body, [], x, Y)
    shown = full_grad(uf.Classifier(body), x, Y, rescale="channel")[:, 0]
    shown = shown - shown.amin((1, 2), keepdim=True)
    assert torch.allclose(shown / shown.amax((1, 2), keepdim=True), seen, atol=1e-3)  # it adds 1e-7


@pytest.mark.parametrize("kind", [Residual, Gates])
def test_the_derivative_of_the_map_is_right(kind):
    model, x = build(kind), x_of(n=2)
    probe, direction = randn(2, 1, 6, 6, dtype=x.dtype), randn(2, 3, 6, 6, seed=1, dtype=x.dtype)

    def show(x):
        return (probe * full_grad(model, x, Y[1:], double_backward="exact")).sum()

    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(show(point), point)
    measured = (show(x + 1e-7 * direction) - show(x - 1e-7 * direction)) / 2e-7
    assert torch.allclose((slope * direction).sum(), measured, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_wrong_is_said():
    model, x = build(Plain), x_of()
    with pytest.raises(Unsupported, match="layer, channel"):
        full_grad(model, x, Y, rescale="image")
    with pytest.raises(Unsupported, match="smooth, exact"):
        full_grad(model, x, Y, double_backward="finite_difference")
    for compiled in (torch.jit.trace(Plain().eval(), x.float()), torch.compile(Plain().eval())):
        with pytest.raises(Unsupported, match="torch.compile and torch.jit"):
            full_grad(compiled, x.float(), Y)
