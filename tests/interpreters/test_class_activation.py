"""Methods that weigh feature maps: against their papers, written out slowly, and against other libraries."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, randn
from underfire.errors import DataError, InputError, ModelError, Unsupported

FAMILY = ("grad_cam", "grad_cam_pp", "score_cam", "smooth_grad_cam_pp")
SHORT = {"smooth_grad_cam_pp": {"samples": 3}}
every_method = pytest.mark.parametrize("name", FAMILY)


def method(name, **options):
    return uf.find("interpreter", name).with_options(**SHORT.get(name, {}) | options)


@pytest.fixture
def case(network):
    x = rand(4, 3, 10, 8, dtype=torch.float64)
    return network("relu", torch.float64), x, torch.tensor([0, 1, 2, 3])


def split(model, x, y, until):
    """The output of `body[:until]`, and the gradient of the logits to it."""
    features = model.module[:until]((x - 0.5) / 0.25).detach().requires_grad_()
    logits = model.module[until:](features)
    (g,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), features)
    return features.detach(), g


def tail_with_kinks(network):
    """A network whose last feature maps have different gradients at different places."""
    body = network("relu", torch.float64).module
    return uf.Classifier(
        nn.Sequential(*body[:4], nn.Flatten(), nn.Linear(8 * 20, 16), nn.ReLU(), nn.Linear(16, 4)).double(),
        mean=0.5,
        std=0.25,
    )


# --- the papers ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_grad_cam_pp_has_the_papers_weights(network, case):
    """α from the true second and third derivatives of exp(S), one place after another."""
    _, x, y = case
    torch.manual_seed(0)
    model = tail_with_kinks(network)
    shown = uf.interpreters.grad_cam_pp(model, x, y, layer="3")
    features, _ = split(model, x, y, 4)
    for i in range(2):
        a = features[i].clone()
        weights = torch.zeros(8, dtype=torch.float64)
        score = model(x[i : i + 1])[0, y[i]].detach()
        for k in range(8):
            for row in range(a.shape[1]):
                for column in range(a.shape[2]):
                    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
                    moved = a.clone()
                    moved[k, row, column] = a[k, row, column] + t
                    value = (model.module[4:](moved[None])[0, y[i]] - score).exp()
                    (first,) = torch.autograd.grad(value, t, create_graph=True)
                    (second,) = torch.autograd.grad(first, t, create_graph=True)
                    (third,) = torch.autograd.grad(second, t)
                    first = first.detach()
                    alpha = second / (2 * second + a[k].sum() * third) if second != 0 else torch.zeros(())
                    weights[k] += alpha.detach() * first.clamp_min(0)
        wanted = (weights[:, None, None] * a).sum(0).clamp_min(0)
        assert torch.allclose(shown[i, 0], wanted, atol=1e-10)


def test_features_below_zero_keep_grad_cam_pp_finite(case):
    """Where the paper's denominator passes through zero, α stays at one half."""
    model, x, y = case
    features, g = split(model, x, y, 3)  # before the ReLU
    alpha = torch.where(g * features.sum((2, 3), keepdim=True) > 0, 1 / (2 + g * features.sum((2, 3), True)), 0.5)
    wanted = ((alpha * g.clamp_min(0)).sum((2, 3), True) * features).sum(1, True).clamp_min(0)
    assert torch.allclose(uf.interpreters.grad_cam_pp(model, x, y, layer="2"), wanted)


def slow_masks(x, a):
    up = F.interpolate(a[:, None], x.shape[2:], mode="bilinear", align_corners=True)
    least, most = up.amin((1, 2, 3), True), up.amax((1, 2, 3), True)
    return torch.where(most - least > 1e-12, (up - least) / (most - least), 0.0)


@pytest.mark.parametrize("softmax", [True, False])
def test_score_cam_one_channel_at_a_time(case, softmax):
    model, x, y = case
    with torch.no_grad():
        model.module[2].weight[5], model.module[2].bias[5] = 0, 1  # a channel that is constant: black images
    features, _ = split(model, x, y, 4)
    black = model(torch.zeros_like(x)).gather(1, y[:, None])[:, 0].detach()
    scores = torch.stack(
        [model(x * slow_masks(x, features[:, k])).gather(1, y[:, None])[:, 0] for k in range(8)], 1
    ).detach()
    assert torch.allclose(scores[:, 5], black)
    weights = scores.softmax(1) if softmax else scores - black[:, None]
    wanted = torch.einsum("bk,bkhw->bhw", weights, features).clamp_min(0)[:, None]
    for chunk in (None, 1, 3, 7, 9, 1000):
        with model.counting() as count:
            shown = uf.interpreters.score_cam(model, x, y, softmax=softmax, chunk=chunk)
        assert torch.allclose(shown, wanted)
        if chunk is not None:
            assert count.forwards == 4 * 8 + 4 + (not softmax)  # nothing twice, no channel left out


def test_smooth_grad_cam_pp_one_sample_at_a_time(network, case):
    _, x, y = case
    torch.manual_seed(0)
    model = tail_with_kinks(network)
    shown = uf.interpreters.smooth_grad_cam_pp(
        model, x, y, layer="3", samples=5, noise=0.3, generator=torch.Generator().manual_seed(7), chunk=3
    )
    z = randn(5, 3, 10, 8, seed=7).double()
    features, _ = split(model, x, y, 4)
    for i in range(4):
        image = x[i : i + 1]
        noisy = [image + 0.3 * (image.max() - image.min()) * z[s] for s in range(5)]
        g = torch.cat([split(model, n, y[i : i + 1], 4)[1] for n in noisy])
        d1, d2, d3 = (g**power for power in (1, 2, 3))
        d1, d2, d3 = d1.mean(0), d2.mean(0), d3.mean(0)
        weights = torch.zeros(8, dtype=torch.float64)
        for k in range(8):
            bend = (features[i, k].sum() * d3[k]).clamp_min(0)
            weights[k] = torch.where(d2[k] > 0, d2[k] / (2 * d2[k] + bend) * d1[k].clamp_min(0), 0.0).sum()
        assert torch.allclose(shown[i, 0], torch.einsum("k,khw->hw", weights, features[i]).clamp_min(0))


def test_a_gradient_that_is_the_same_for_all_images_has_a_derivative_in_chunks(case):
    """That of the last maps before global average pooling: only the features themselves depend on the image."""
    model, x, y = case
    slopes = []
    for chunk in (3, 1000):
        point = x.clone().requires_grad_()
        shown = uf.interpreters.smooth_grad_cam_pp(model, point, y, samples=3, chunk=chunk)
        slopes += torch.autograd.grad(shown.square().sum(), point)
    assert torch.allclose(*slopes) and bool((slopes[0] != 0).any())


def test_without_noise_smooth_grad_cam_pp_is_grad_cam_pp(network, case):
    _, x, y = case
    model = tail_with_kinks(network)
    smooth = uf.interpreters.smooth_grad_cam_pp(model, x, y, layer=("1", "3"), samples=2, noise=0)
    assert torch.allclose(smooth, uf.interpreters.grad_cam_pp(model, x, y, layer=("1", "3")))


# --- layers, graphs, errors ------------------------------------------------------------------------------------------


@every_method
def test_several_layers_count_alike_on_the_largest_grid(case, name):
    model, x, y = case
    first, second = (method(name, layer=layer)(model, x, y) for layer in ("1", "3"))
    assert first.shape[2:] == (10, 8) and second.shape[2:] == (5, 4)
    scaled = [m / m.amax((1, 2, 3), keepdim=True) for m in (first, second)]
    wanted = (scaled[0] + F.interpolate(scaled[1], (10, 8), mode="bilinear")) / 2
    assert torch.allclose(method(name, layer=("1", "3"))(model, x, y), wanted)
    assert torch.allclose(method(name, layer=("3", "1"))(model, x, y), wanted)
    assert torch.equal(method(name, layer=("3",))(model, x, y), second)


def test_a_map_that_is_zero_stays_zero_beside_others(case):
    model, x, y = case
    with torch.no_grad():
        model.module[2].weight.zero_()
        model.module[2].bias.fill_(-1)
    assert (uf.interpreters.grad_cam(model, x, y, layer=("1", "3")) == 0).all()


@every_method
@pytest.mark.parametrize("layer", ["1", ("1", "2")])
def test_inner_layers_are_differentiated_too(network, case, name, layer):
    """There the weights depend on the image, not only the features."""
    _, x, y = case
    x = x[:2].clone().requires_grad_()
    model, show = network("smooth", torch.float64), method(name, layer=layer)
    model.module[4] = nn.Sequential(nn.Tanh(), nn.AdaptiveAvgPool2d(1))
    shown = show(model, x, y[:2])
    probe = randn(shown.shape, seed=1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((probe * shown).sum(), x)
    for seed in range(3):
        direction = randn(x.shape, seed=seed, dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (show(model, x + s * direction, y[:2]) for s in (1e-6, -1e-6))
        measured = (probe * (ahead - behind)).sum() / 2e-6
        assert torch.allclose((slope * direction).sum(), measured, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score_cam", "smooth_grad_cam_pp"])
def test_chunks_have_the_same_derivative_whatever_the_mode_outside(network, case, name):
    """The passes made again on the way back are those of a frozen model in evaluation mode."""
    _, x, y = case
    model = network("smooth", torch.float64)
    model.module.insert(1, nn.BatchNorm2d(8).double())
    slopes = []
    for chunk in (1000, 3):
        model.train()
        point = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(method(name, layer="2", chunk=chunk)(model, point, y).square().sum(), point)
        slopes.append(slope)
    assert torch.allclose(*slopes) and bool((slopes[0] != 0).any())
    assert model.module[1].num_batches_tracked == 0 and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_pp"])
def test_only_what_follows_the_layer_keeps_a_graph(case, name):
    model, x, y = case
    graphs = {}
    for i in (0, 2, 3):
        model.module[i].register_forward_hook(lambda _, __, out, i=i: graphs.update({i: out.requires_grad}))
    method(name)(model, x, y)
    graphs.clear()
    method(name, layer="2")(model, x, y)
    assert graphs == {0: False, 2: False, 3: True}


@every_method
def test_a_pass_shared_with_others_is_not_forgotten(case, name):
    model, x, y = case
    wanted = method(name)(model, x, y)  # finds out what it must know about the model
    with model.counting() as count, uf.hooks.shared_forward(model), torch.no_grad():
        model(x)
        assert torch.equal(method(name)(model, x, y), wanted)
        before = count.forwards
        model(x)
        assert count.forwards == before


@every_method
def test_what_is_wrong_is_said(case, name):
    model, x, y = case
    for layer, error, message in [
        ("9", ModelError, "no layer '9'"),
        ("6", Unsupported, r"spatial layer, .*; '6' gives \(4,\)"),
        ("4", Unsupported, r"'4' gives \(8, 1, 1\)"),
        ((), InputError, "one name or several different ones"),
        (("1", "1"), InputError, "several different ones"),
        (5, InputError, "several different ones"),
    ]:
        with pytest.raises(error, match=message):
            method(name, layer=layer)(model, x, y)
    with pytest.raises(DataError, match="nan to nan"):
        method(name)(model, x.index_fill(0, torch.tensor(2), float("nan")), y)
    with torch.no_grad():
        model.module[6].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="(4 of 4|12 of 12)"):
        method(name)(model, x, y)


def test_a_layer_that_changes_nothing_is_named(network, case):
    _, x, y = case

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = network("relu", torch.float64).module, nn.Conv2d(3, 4, 3).double()

        def forward(self, x):
            self.side(x)
            return self.main(x)

    with pytest.raises(Unsupported, match="respect to layer 'side'"):
        uf.interpreters.grad_cam(Aside(), x, y, layer="side")


def test_noise_and_samples_that_mean_nothing(case):
    model, x, y = case
    for wrong in ({"samples": 0}, {"noise": -0.1}):
        with pytest.raises(InputError, match="samples .* noise"):
            uf.interpreters.smooth_grad_cam_pp(model, x, y, **wrong)
    with pytest.raises(InputError, match="too small for one image"):
        uf.interpreters.score_cam(model, x, y, memory=1e-4)
    with pytest.raises(DataError, match="class 9"):
        uf.interpreters.score_cam(model, x, y + 6)


# --- other libraries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, 3])
def test_grad_cam_equals_captums(network, case, layer):
    attr = pytest.importorskip("captum.attr")
    _, x, y = case
    model = tail_with_kinks(network)
    theirs = attr.LayerGradCam(model, model.module[layer]).attribute(x, target=y, relu_attributions=True)
    assert torch.allclose(uf.interpreters.grad_cam(model, x, y, layer=str(layer)), theirs, atol=1e-4)
    assert (theirs > 0).any()


@pytest.fixture
def peer():
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def show(name, model, layers, x, y):
        with getattr(pytorch_grad_cam, name)(model=model, target_layers=layers) as explain, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(explain(input_tensor=x, targets=[ClassifierOutputTarget(int(c)) for c in y]))

    return show


def as_theirs(shown, size):
    """Their normalisation: from zero to one, at the size of the image by OpenCV, from zero to one once more."""
    cv2 = pytest.importorskip("cv2")

    def unit(m):
        m = m - m.amin()
        return m / (1e-7 + m.amax())

    out = [torch.from_numpy(cv2.resize(unit(m[0]).float().numpy(), size[::-1])) for m in shown]
    return torch.stack([unit(m) for m in out])


@pytest.mark.parametrize(("ours", "theirs"), [("grad_cam_pp", "GradCAMPlusPlus"), ("score_cam", "ScoreCAM")])
def test_equal_to_pytorch_grad_cam(network, case, peer, ours, theirs):
    _, x, y = case
    model = tail_with_kinks(network).float()
    with torch.no_grad():
        model.module[-1].weight *= 100  # it adds 1e-6 to squared gradients, which must be large against that
    x = x.float()
    seen = peer(theirs, model, [model.module[3]], x, y)
    shown = method(ours, layer="3")(model, x, y)
    assert torch.allclose(as_theirs(shown, (10, 8)), seen, atol=1e-4)
    assert (shown.amax((1, 2, 3)) > 0).all()


# --- guided ----------------------------------------------------------------------------------------------------------


def test_guided_grad_cam_is_a_product(case):
    model, x, y = case
    heat = F.interpolate(uf.interpreters.grad_cam(model, x, y), (10, 8), mode="bilinear")
    guided = uf.interpreters.guided_backprop(model, x, y, channels=True)
    assert torch.allclose(uf.interpreters.guided_grad_cam(model, x, y), (heat * guided).abs().amax(1, keepdim=True))
    signed = uf.interpreters.guided_grad_cam(model, x, y, absolute=False)
    assert torch.allclose(signed, (heat * guided).sum(1, keepdim=True))


def test_guided_grad_cam_equals_captums(network, case):
    attr = pytest.importorskip("captum.attr")
    _, x, y = case
    model = tail_with_kinks(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it bends the ReLUs
        explain = attr.GuidedGradCam(model, model.module[3])
        theirs = explain.attribute(x.clone().requires_grad_(), target=y, interpolate_mode="bilinear")
    ours = uf.interpreters.guided_grad_cam(model, x, y, layer="3", absolute=False)
    assert torch.allclose(ours, theirs.sum(1, keepdim=True), atol=1e-4)
    assert (ours.abs().amax((1, 2, 3)) > 0).all()
