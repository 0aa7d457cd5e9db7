"""Layer-wise relevance propagation: against its equations written out, against Captum, and that nothing gets lost."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, randn
from underfire.errors import InputError, Unsupported
from underfire.interpreters import lrp
from underfire.interpreters.lrp.rules import COMPOSITES, PIXEL_RULES, RULES

Y = torch.tensor([0, 1, 3])


def x_of(side=6, n=3):
    return rand(n, 3, side, side, dtype=torch.float64)


def logit(model, x, y=Y):
    return model(x).gather(1, y[:, None])[:, 0].detach()


class Plain(nn.Module):
    """Two convolutions and two linear layers with ReLUs."""

    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 6, 3, bias=bias), nn.Conv2d(6, 8, 3, stride=2, bias=bias)
        self.three, self.four = nn.Linear(8, 9, bias=bias), nn.Linear(9, 4, bias=bias)
        self.relu, self.other, self.last = nn.ReLU(), nn.ReLU(), nn.ReLU()
        for parameter in self.parameters():
            parameter.data.mul_(2 if parameter.dim() > 1 else 0.2)

    def forward(self, x):
        z = self.other(self.two(self.relu(self.one(x))))
        return self.four(self.last(self.three(z.flatten(1))))


class Residual(nn.Module):
    """Batch norms, functional rectifiers (one in place, one capped), a residual sum, and pools."""

    def __init__(self, relu=F.relu, inside=False):
        super().__init__()
        torch.manual_seed(0)
        self.relu, self.inside = relu, inside
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.body, self.body_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        for norm in (self.norm, self.body_norm):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)

    def forward(self, x):
        x = (x - 0.4) / 0.3 if self.inside else x
        z = F.max_pool2d(self.relu(self.norm(self.stem(x))), 3, 2, 1)
        y = F.relu6(4 * self.body_norm(self.body(z)), inplace=True)
        y += z
        return self.head(F.avg_pool2d(y, 2).mean((2, 3)))


def build(kind=Residual, **options):
    return uf.Classifier(kind(**options).double().eval())


# --- the equations ---------------------------------------------------------------------------------------------------


def shares(rule, a, w, b, low, high, gamma=0.25, alpha=2.0):
    """The relevance that input j gets of output k for one image, and what biases get, one connection at a time."""
    q = a[:, None] * w  # [in, out]
    up, down, bias_up, bias_down = q.clamp_min(0), q.clamp_max(0), b.clamp_min(0), b.clamp_max(0)
    if rule == "epsilon":
        return q / (q.sum(0) + b)
    if rule == "z_plus":
        return up / (up.sum(0) + bias_up)
    if rule == "alpha_beta":
        return alpha * up / (up.sum(0) + bias_up) + (1 - alpha) * down / (down.sum(0) + bias_down)
    if rule == "gamma":
        positive = (q.sum(0) + b) > 0
        more, bias = torch.where(positive, up, down), torch.where(positive, bias_up, bias_down)
        return (q + gamma * more) / ((q + gamma * more).sum(0) + b + gamma * bias)
    connected = (w != 0).to(w)
    box = q - low[:, None] * w.clamp_min(0) - high[:, None] * w.clamp_max(0)
    found = {"flat": connected, "w_square": w.square(), "box": box}[rule]
    return found / found.sum(0)


def by_hand(body, x, y, rules):
    """Each layer as a matrix; the relevance of every pixel of the normalised image."""
    layers, out = [], []
    for x_i, y_i in zip(x, y, strict=True):
        a, layers = x_i, []
        for layer, arranged in ((body.one, a.shape), (body.two, (6, 4, 4)), (body.three, (8,)), (body.four, (9,))):
            a = a.reshape(arranged)
            w = torch.autograd.functional.jacobian(lambda t, layer=layer: layer(t[None])[0].flatten(), a)
            b = layer(torch.zeros_like(a)[None])[0].flatten().detach()
            layers.append((a.flatten().detach(), w.flatten(1).T.detach(), b))
            a = layer(a[None])[0].relu()
        relevance = torch.zeros(4, dtype=x.dtype)
        relevance[y_i] = layers[-1][0] @ layers[-1][1][:, y_i] + layers[-1][2][y_i]
        for (a, w, b), rule in reversed(list(zip(layers, rules, strict=True))):
            relevance = (shares(rule, a, w, b, torch.full_like(a, -2), torch.full_like(a, 2)) * relevance).sum(1)
        out.append(relevance.view_as(x_i))
    return torch.stack(out)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_is_the_papers_equations(composite):
    body = Plain().double().eval()
    model = uf.Classifier(body, mean=0.5, std=0.25)  # pixels from -2 to 2
    x = x_of()
    pixels, convolutions, dense = COMPOSITES[composite]
    wanted = by_hand(body, (x - 0.5) / 0.25, Y, (pixels, convolutions, dense, dense))
    shown = lrp(model, x, Y, composite=composite, epsilon=1e-12, channels=True)
    assert torch.allclose(shown, wanted, rtol=1e-6, atol=1e-9)
    assert torch.allclose(lrp(model, x, Y, composite=composite, epsilon=1e-12), wanted.sum(1, keepdim=True), atol=1e-9)


@pytest.mark.parametrize("rule", PIXEL_RULES)
def test_a_rule_may_be_chosen_for_each_kind_of_layer(rule):
    body, x = Plain().double().eval(), x_of()
    model = uf.Classifier(body, mean=0.5, std=0.25)
    shown = lrp(model, x, Y, pixels=rule, convolutions="gamma", linear="z_plus", epsilon=1e-12, channels=True)
    wanted = by_hand(body, (x - 0.5) / 0.25, Y, (rule, "gamma", "z_plus", "z_plus"))
    assert torch.allclose(shown, wanted, rtol=1e-6, atol=1e-9)


def test_epsilon_takes_relevance_from_weak_outputs():
    """Of one linear layer: w_j x_j (z / (z + ε sign z))."""
    weight = randn(4, 12, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False, dtype=torch.float64))
    model[1].weight.data = weight
    x = x_of(2)
    z = logit(model, x)
    wanted = weight[Y].view_as(x) * x * (z / (z + 0.3 * z.sign())).view(-1, 1, 1, 1)
    assert torch.allclose(lrp(model, x, Y, composite="epsilon", epsilon=0.3, channels=True), wanted)


# --- another library -------------------------------------------------------------------------------------------------


def captums(body, x, y):
    attr = pytest.importorskip("captum.attr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attr.LRP(body).attribute(x.clone(), target=y).detach()


def test_the_epsilon_rule_equals_captums():
    body, x = Plain().double().eval(), x_of()
    shown = lrp(uf.Classifier(body), x, Y, composite="epsilon", epsilon=1e-9, channels=True)
    assert torch.allclose(shown, captums(body, x, Y), atol=1e-7) and float(shown.abs().max()) > 1e-3


def test_the_gamma_and_the_z_plus_rule_equal_captums():
    """On features that are not negative, and without biases, where its rules are those of the papers."""
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    for rule, theirs in (("gamma", rules.GammaRule), ("z_plus", rules.Alpha1_Beta0_Rule)):
        body, x = Plain(bias=False).double().eval(), x_of()
        shown = lrp(uf.Classifier(body), x, Y, composite="epsilon", convolutions=rule, epsilon=1e-9, channels=True)
        body.two.rule = theirs()
        assert torch.allclose(shown, captums(body, x, Y), atol=1e-7)


# --- conservation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("kind", [Plain, Residual])
def test_without_biases_the_relevance_is_the_logit(composite, kind):
    model, x = build(kind), x_of()
    shown = lrp(model, x, Y, composite=composite, bias=False, epsilon=1e-12)
    assert torch.allclose(shown.sum((1, 2, 3)), logit(model, x), atol=1e-8)
    with_biases = lrp(model, x, Y, composite=composite, epsilon=1e-12)
    assert not torch.allclose(with_biases.sum((1, 2, 3)), logit(model, x), atol=1e-3)


def test_pixels_that_are_zero_get_a_share_by_rules_for_pixels():
    model, x = build(Plain), x_of()
    x[:, :, 2:4, 2:4] = 0
    for rule in RULES:
        assert not lrp(model, x, Y, pixels=rule)[:, :, 2:4, 2:4].any()
    for rule in ("box", "flat", "w_square"):
        assert bool((lrp(model, x, Y, pixels=rule)[:, :, 2:4, 2:4] != 0).all())


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat", "epsilon_plus_box"])
def test_it_does_not_matter_where_the_image_is_normalised(composite):
    x = x_of()
    inside, outside = build(inside=True), uf.Classifier(Residual().double().eval(), mean=0.4, std=0.3)
    maps = [lrp(model, x, Y, composite=composite) for model in (inside, outside)]
    assert torch.allclose(*maps, atol=1e-9)


def test_a_batch_norm_belongs_to_the_convolution_before_it():
    """Its relevance is that of a network in which the batch norms were folded by hand."""
    model, x, by_hand = build(), x_of(), build()
    for convolution, norm in (("stem", "norm"), ("body", "body_norm")):
        layer, after = (getattr(by_hand.module, name) for name in (convolution, norm))
        setattr(by_hand.module, convolution, nn.utils.fusion.fuse_conv_bn_eval(layer, after))
        setattr(by_hand.module, norm, nn.Identity())
    for composite in COMPOSITES:
        maps = [lrp(m, x, Y, composite=composite) for m in (model, by_hand)]
        assert torch.allclose(*maps, atol=1e-9)


@pytest.mark.parametrize(
    "relu",
    [
        lambda z: z.relu_(),
        lambda z: z.clamp(min=0),
        lambda z: torch.maximum(z, torch.zeros_like(z)),
        lambda z: z * (z > 0),
        lambda z: torch.where(z > 0, z, 0.0),
    ],
)
def test_a_rectifier_may_be_spelt_in_any_way(relu):
    x, models = x_of(), (build(relu=relu), build())
    slopes, maps = [], []
    for model in models:
        point = x.clone().requires_grad_()
        maps.append(lrp(model, point, Y))
        slopes += torch.autograd.grad((randn(3, 1, 6, 6, dtype=torch.float64) * maps[-1]).sum(), point)
    assert torch.allclose(*maps) and torch.allclose(*slopes)


class Gated(nn.Module):
    """What is not in the papers on LRP: smooth activations, a gate, group norm and attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.gate = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 8)
        self.attention, self.layer_norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        z = F.silu(self.norm(self.stem(x)), inplace=True)
        z = z * torch.tanh(self.gate(z.mean((2, 3))))[:, :, None, None]
        z = self.layer_norm(F.max_pool2d(z, 2).flatten(2).transpose(1, 2))
        q, k, v = (z * c for c in (1.0, 2.0, -1.0))
        z = z + F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.head((z + self.attention(z, z, z)[0]).mean(1))


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_gamma_box"])
def test_other_operations_have_finite_and_differentiable_relevance(composite):
    model, x = build(Gated), x_of()
    shown = lrp(model, x, Y, composite=composite)
    assert bool(torch.isfinite(shown).all()) and float(shown.abs().max()) < 100
    with torch.no_grad():  # without the part that is not conserved, the softmax of attention
        model.module.attention.out_proj.weight.zero_()
        model.module.forward = lambda x: nn.Sequential(model.module.stem, model.module.norm, nn.GELU())(x).sum((2, 3))[
            :, :4
        ]
    assert torch.allclose(
        lrp(model, x, Y, composite=composite, bias=False, epsilon=1e-12).sum((1, 2, 3)), logit(model, x)
    )


# --- derivatives, attacks, errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
def test_the_derivative_of_the_map_is_right(composite):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(3, 4))
    model = uf.Classifier(body.double().eval())
    x = rand(2, 2, 3, 3, dtype=torch.float64).requires_grad_()

    def show(x):
        return lrp(model, x, Y[1:], composite=composite, epsilon=1e-2, double_backward="exact")

    assert torch.autograd.gradcheck(show, (x,), fast_mode=True)


def test_the_smooth_derivative_is_not_zero_where_the_exact_one_is_small():
    model, x = build(Plain), x_of().requires_grad_()
    slopes = {}
    for kind in ("smooth", "exact"):
        shown = lrp(model, x, Y, composite="epsilon", double_backward=kind)
        (slopes[kind],) = torch.autograd.grad(shown.square().sum(), x)
    assert not torch.allclose(slopes["smooth"], slopes["exact"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_wrong_options_are_named():
    model, x = build(Plain), x_of()
    for wrong, error, word in (
        ({"composite": "epsilon_plus_flt"}, InputError, "epsilon_plus_flat"),
        ({"pixels": "boxes"}, InputError, "box"),
        ({"convolutions": "flat"}, InputError, "'flat' for convolutions"),
        ({"epsilon": 0.0}, InputError, "got 0"),
        ({"gamma": -1.0}, InputError, "gamma"),
        ({"alpha": 0.5}, InputError, "alpha"),
        ({"double_backward": "finite_difference"}, Unsupported, "smooth, exact"),
    ):
        with pytest.raises(error, match=word):
            lrp(model, x, Y, **wrong)
    for compiled in (torch.jit.trace(Plain().eval(), x.float()), torch.compile(Plain().eval())):
        with pytest.raises(Unsupported, match="torch.compile and torch.jit"):
            lrp(compiled, x.float(), Y)
