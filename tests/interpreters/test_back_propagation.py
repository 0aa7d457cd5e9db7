"""Integrated gradients, SmoothGrad, guided back-propagation and deconvolution: formulas, loops, and Captum."""

from functools import partial
from importlib import import_module

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand, randn
from underfire.attribution.gradients import drawn_points
from underfire.errors import DataError, InputError, ModelError, Unsupported
from underfire.hooks import deconv_relu, guided_relu, shared_forward, smooth_relu
from underfire.interpreters import deconvnet, gradient, gradient_input, guided_backprop, integrated_gradients
from underfire.interpreters import smooth_grad as smoothed
from underfire.interpreters.integrated_gradients import QUADRATURES, baselines, nodes, quadrature_error

BENT = {guided_backprop: guided_relu, deconvnet: deconv_relu}


class Squares(nn.Module):
    """Class k answers with k times the sum of the squares: of such a path the exact integral is known."""

    def forward(self, x):
        return x.square().sum((1, 2, 3))[:, None] * torch.arange(4).to(x)


class Lambda(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.forward = f


@pytest.fixture
def case(network):
    x = rand(4, 3, 10, 8, dtype=torch.float64)
    return network("relu", torch.float64), x, torch.tensor([0, 1, 2, 3])


def plain(model, x, y):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), x)[0]


@pytest.mark.parametrize("double_backward", ["finite_difference", "exact", "smooth"])
def test_the_gradient_of_the_probability_is_equation_5_of_adv2(case, double_backward):
    model, x, y = case
    options = {"output": "probability", "double_backward": double_backward}
    expected = plain(lambda z: model(z).softmax(1), x, y).abs().amax(1, keepdim=True)
    assert torch.allclose(gradient(model, x, y, **options), expected, atol=1e-12)
    assert not torch.allclose(gradient(model, x, y), expected, rtol=1e-2)
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gradient(model, z, y, **options).sum(), z)
    assert slope.abs().sum() > 0  # the curvature of the softmax remains, even where that of ReLUs is zero
    with pytest.raises(Unsupported, match="output"):
        gradient(model, x, y, output="odds")


# --- integrated gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quadrature", "factor"), [("gauss-legendre", 1), ("middle", 1), ("right", 6 / 5), ("left", 4 / 5)]
)
def test_the_sum_of_squares_in_five_steps(case, quadrature, factor):
    """The gradient grows linearly along the way, so that each quadrature's value is known."""
    _, x, y = case
    shown = integrated_gradients(Squares(), x, y, steps=5, quadrature=quadrature)
    assert torch.allclose(shown, factor * y.view(-1, 1, 1, 1) * x.square().sum(1, keepdim=True))


def test_integrated_gradients_word_for_word(case):
    """Of the slide: the right Riemann sum, one image and one step at a time."""
    model, x, y = case
    empty = rand(3, 10, 8, seed=3, dtype=torch.float64)
    shown = integrated_gradients(model, x, y, baseline=empty, steps=7, quadrature="right", chunk=4)
    for i in range(4):
        total = torch.zeros(3, 10, 8, dtype=torch.float64)
        for k in range(1, 8):
            total += plain(model, (empty + k / 7 * (x[i] - empty))[None], y[i : i + 1])[0] / 7
        assert torch.allclose(shown[i, 0], ((x[i] - empty) * total).sum(0))


def test_every_pass_is_made_once(case):
    model, x, y = case
    integrated_gradients(model, x, y, steps=9)
    with model.counting() as count:
        integrated_gradients(model, x, y, steps=9, chunk=5)
    assert count.forwards == count.backwards == 9 * len(x)


def test_the_maps_derivative_costs_as_much_again_and_is_that_of_single_passes(case):
    model, x, y = case
    for double_backward in ("finite_difference", "exact"):
        slopes = []
        for chunk in (5, 100):
            point = x.clone().requires_grad_()
            with model.counting() as count:
                shown = integrated_gradients(
                    model, point, y, steps=6, baseline="blur", double_backward=double_backward, chunk=chunk
                )
                slopes += torch.autograd.grad(shown.square().sum(), point)
            if double_backward == "finite_difference":
                assert count.forwards == count.backwards == 2 * 6 * len(x)
        assert torch.allclose(*slopes, rtol=1e-8, atol=1e-8 * slopes[0].abs().max().item())


MEANS = {
    "integrated_gradients": (partial(integrated_gradients, steps=4, baseline="blur"), "derivative_steps"),
    "smooth_grad": (partial(smoothed, samples=4, absolute=False), "derivative_samples"),
}


def slope_of(run, model, x, y, **options):
    point = x.clone().requires_grad_()
    weights = randn(len(x), 1, *x.shape[2:], seed=1, dtype=x.dtype)
    with model.counting() as count:
        shown = run(model, point, y, **options)
        (slope,) = torch.autograd.grad((weights * shown).sum(), point)
    return shown.detach(), slope, count.backwards // len(x)


@pytest.mark.parametrize("name", MEANS)
def test_a_derivative_at_a_few_points_is_right_in_expectation_and_costs_less(case, name, monkeypatch):
    """The mean over all first points is the whole derivative; the map is the same."""
    model, x, y = case
    run, option = MEANS[name]
    module = import_module(f"underfire.interpreters.{name}")
    shown, whole, passes = slope_of(run, model, x, y)
    assert passes == 4 + 4
    same = [slope_of(run, model, x, y, **{option: 2}, chunk=chunk)[1] for chunk in (None, 3)]
    assert torch.allclose(*same, rtol=1e-8, atol=1e-9 * whole.abs().max().item())
    for wrong in (0, 5):
        with pytest.raises(InputError, match=f"got {wrong}"):
            slope_of(run, model, x, y, **{option: wrong})
    slopes = []
    for first in range(4):
        monkeypatch.setattr(module, "drawn_points", lambda *_, first=first: torch.tensor([first]))
        some, slope, passes = slope_of(run, model, x, y, **{option: 1})
        assert torch.allclose(some, shown) and passes == 4 + 1
        slopes.append(slope)
    assert not torch.allclose(slopes[0], whole)
    assert torch.allclose(sum(slopes) / 4, whole, atol=1e-9 * whole.abs().max().item())


def test_few_points_are_drawn_equally_often_and_by_the_images():
    images = [rand(2, 3, 4, 4, seed=seed) for seed in range(60)]
    for total, few in ((8, 1), (8, 2), (8, 3), (5, 4), (3, 3)):
        draws = [drawn_points(total, few, x) for x in images]
        assert all(torch.equal(drawn_points(total, few, x.clone()), d) for x, d in zip(images, draws, strict=True))
        firsts = {int(points[0]): points for points in draws}
        assert sorted(firsts) == list(range(total))
        assert torch.cat(list(firsts.values())).bincount().tolist() == [few] * total
        assert all(len(points.unique()) == few for points in draws)


def test_the_derivative_of_smooth_grad_is_that_of_its_copies(network, case):
    """Of the image and of the noise, whose size follows the image: against the mean of single maps."""
    model, x, y = network("smooth", torch.float64), *case[1:]
    draws = randn(3, 3, 10, 8).double()
    weights = randn(4, 1, 10, 8, seed=1, dtype=torch.float64)
    for chunk in (None, 5):
        point, other = (x.clone().requires_grad_() for _ in range(2))
        shown = smoothed(model, point, y, samples=3, absolute=False, chunk=chunk)
        (slope,) = torch.autograd.grad((weights * shown).sum(), point)
        sigma = 0.15 * (other.amax((1, 2, 3), keepdim=True) - other.amin((1, 2, 3), keepdim=True))
        mean = sum(gradient(model, other + sigma * z, y, channels=True) for z in draws) / 3
        (wanted,) = torch.autograd.grad((weights * mean.sum(1, keepdim=True)).sum(), other)
        assert torch.allclose(shown, mean.sum(1, keepdim=True))
        assert torch.allclose(slope, wanted, rtol=1e-6, atol=1e-9 * wanted.abs().max().item())


def test_differences_at_half_of_many_copies_give_the_exact_derivative(network, case):
    """Against back-propagating twice through all copies."""
    model, x, y = network("smooth", torch.float64), *case[1:]
    slopes = [
        slope_of(smoothed, model, x, y, samples=64, absolute=False, **options)[1].flatten(1)
        for options in ({"derivative_samples": 32}, {"double_backward": "exact"})
    ]
    assert bool((torch.cosine_similarity(*slopes) > 0.99).all())
    assert torch.allclose(slopes[0].norm(dim=1), slopes[1].norm(dim=1), rtol=0.1)


def test_few_copies_need_plain_gradients(case):
    for options in ({"interpreter": "guided_backprop"}, {"squared": True}, {"double_backward": "exact"}):
        with pytest.raises(Unsupported, match="derivative_samples"):
            smoothed(*case, samples=2, derivative_samples=1, **options)


def test_baselines(case):
    model, x, y = case
    many = baselines(x, "many")
    assert [m.shape for m in many] == [x.shape] * 4
    assert torch.equal(many[0], torch.zeros_like(x)) and torch.equal(many[1], torch.ones_like(x))
    assert torch.allclose(many[2], x.mean((2, 3), keepdim=True).expand_as(x))
    run = partial(integrated_gradients, model, x, y, steps=6)
    apart = torch.stack([run(baseline=name) for name in ("black", "white", "mean", "blur")])
    assert torch.allclose(run(baseline="many"), apart.mean(0))
    assert torch.allclose(run(baseline=many), apart.mean(0))
    assert torch.allclose(run(baseline=many[2]), apart[2])
    assert torch.allclose(run(baseline=torch.ones(3, 10, 8)), apart[1])
    assert torch.allclose(run(baseline=torch.ones(1, 1, 3, 10, 8)), apart[1])


@pytest.mark.parametrize("baseline", ["black", "blur", "many"])
@pytest.mark.parametrize("neuron", [None, "2:5", "2:3,1,2"])
def test_integrated_gradients_are_complete(network, case, baseline, neuron):
    _, x, y = case
    model = network("smooth", torch.float64)
    gaps = {}
    for steps in (2, 12):
        shown = integrated_gradients(model, x, y, baseline=baseline, steps=steps, neuron=neuron)
        gaps[steps] = quadrature_error(model, x, y, shown, baseline=baseline, neuron=neuron)
    assert (gaps[12] < 1e-6).all() and (gaps[12] < gaps[2]).all()
    assert torch.allclose(
        quadrature_error(model, x, y, 0 * shown, baseline=baseline, neuron=neuron), torch.ones(4).double()
    )


def test_the_gap_is_the_measures(case):
    model, x, y = case
    shown = integrated_gradients(model, x, y, steps=3, quadrature="left")
    told = uf.measures.completeness_gap(model, x, y, shown, baseline="black")
    assert torch.allclose(quadrature_error(model, x, y, shown), told) and (told > 0).all()


@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_nodes(quadrature):
    places, weights = (torch.tensor(v, dtype=torch.float64) for v in nodes(quadrature, 8))
    assert abs(weights.sum() - 1) < 1e-12 and places.min() >= 0 and places.max() <= 1
    if quadrature == "gauss-legendre":  # exact for polynomials below twice its steps
        assert all(abs((weights * places**p).sum() - 1 / (p + 1)) < 1e-12 for p in range(16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "grey"}, "unknown baseline 'grey'"),
        ({"baseline": 0.5}, "tensor of images, got 0.5"),
        ({"baseline": torch.zeros(2, 2)}, r"baseline \(2, 2\) does not fit images \(4, 3, 10, 8\)"),
        ({"quadrature": "simpson"}, "unknown quadrature 'simpson'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"memory": 1e-4}, "too small for one image"),
        ({"double_backward": "wide"}, "double_backward 'wide' is unknown"),
    ],
)
def test_wrong_options_of_integrated_gradients(case, options, message):
    with pytest.raises(InputError, match=message):
        integrated_gradients(*case, **options)


# --- SmoothGrad ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squared", [False, True])
def test_smooth_grad_word_for_word(case, squared):
    """Signed gradients are averaged, channels are joined afterwards."""
    model, x, y = case
    draws = randn(5, 3, 10, 8, seed=9).double()
    power = 2 if squared else 1
    wanted = []
    for i in range(4):
        sigma = 0.2 * (x[i].max() - x[i].min())
        wanted.append(sum(plain(model, (x[i] + sigma * z)[None], y[i : i + 1]) ** power for z in draws) / 5)
    wanted = torch.cat(wanted)
    run = partial(smoothed, model, x, y, samples=5, noise=0.2, squared=squared, chunk=3)
    lots = lambda: torch.Generator().manual_seed(9)  # noqa: E731
    assert torch.allclose(run(generator=lots()), wanted.abs().amax(1, keepdim=True))
    assert torch.allclose(run(generator=lots(), absolute=False), wanted.sum(1, keepdim=True))


def test_noise_is_relative_to_the_range_of_each_image(case):
    model, x, y = case
    squeezed = 0.3 + 0.1 * x
    seen = []

    def interpreter(model, x, y):
        seen.append(x)
        return x[:, :1]

    smoothed(model, torch.cat([x, squeezed]), torch.cat([y, y]), interpreter=interpreter, samples=1, chunk=8)
    noise = seen[0] - torch.cat([x, squeezed])
    assert torch.allclose(noise[4:], 0.1 * noise[:4])


@pytest.mark.parametrize("name", ["grad_cam", "cam", "gradient_input", "integrated_gradients"])
def test_smooth_grad_is_the_mean_of_any_methods_maps(case, name):
    model, x, y = case
    options = {"steps": 3} if name == "integrated_gradients" else {}
    method = partial(uf.find("interpreter", name).function, **options)
    draws = randn(6, 3, 10, 8, dtype=torch.float32).to(x)
    sigma = 0.15 * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    wanted = sum(method(model, x + sigma * z, y) for z in draws) / 6
    assert torch.allclose(smoothed(model, x, y, interpreter=method, samples=6), wanted)
    if not options:
        assert torch.allclose(smoothed(model, x, y, interpreter=name, samples=6, chunk=5), wanted)


def test_smooth_grad_around_integrated_gradients_can_be_differentiated(network, case):
    _, x, y = case
    model = network("smooth", torch.float64)
    x = x[:2, :, :6, :6].clone().requires_grad_()
    method = partial(integrated_gradients, steps=4, double_backward="exact", chunk=3)
    run = partial(smoothed, model, y=y[:2], interpreter=method, samples=3, chunk=2)
    weights = randn(2, 1, 6, 6, seed=1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((weights * run(x)).sum(), x)
    step = 1e-6 * randn(x.shape, seed=2, dtype=torch.float64)
    with torch.no_grad():
        change = (weights * (run(x + step) - run(x - step))).sum() / 2
    assert torch.allclose((slope * step).sum(), change, rtol=1e-4)


def test_what_smooth_grad_hands_on(case):
    model, x, y = case
    draws = randn(2, 3, 10, 8, dtype=torch.float32).to(x)
    sigma = 0.15 * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    wanted = sum(gradient(model, x + sigma * z, y, neuron="2:5", absolute=False) for z in draws) / 2
    assert torch.allclose(smoothed(model, x, y, samples=2, neuron="2:5", absolute=False), wanted)
    with pytest.raises(Unsupported, match="'cam' .* option 'neuron'"):
        smoothed(model, x, y, interpreter="cam", neuron="2:5")
    with pytest.raises(InputError, match="unknown interpreter 'gradeint'"):
        smoothed(model, x, y, interpreter="gradeint")
    with pytest.raises(Unsupported, match="gives images"):
        smoothed(model, x, y, interpreter="counterfactual")
    with pytest.raises(InputError, match="samples .* noise .* 0 and 0.15"):
        smoothed(model, x, y, samples=0)


# --- what rectifiers pass back ---------------------------------------------------------------------------------------


def by_hand(model, x, y, rule):
    """Back through the layers of the small network, from the weights."""
    z1 = model.module[0]((x - 0.5) / 0.25)
    z2 = model.module[2](z1.relu())
    cells = z2.shape[2] * z2.shape[3]
    g = model.module[6].weight[y][:, :, None, None].expand_as(z2) / cells
    g = torch.nn.grad.conv2d_input(z1.shape, model.module[2].weight, rule(g, z2), stride=2, padding=1)
    return torch.nn.grad.conv2d_input(x.shape, model.module[0].weight, rule(g, z1), padding=1) / 0.25


RULES = {
    guided_backprop: lambda g, z: g.clamp_min(0) * (z > 0),
    deconvnet: lambda g, z: g.clamp_min(0),
}


@pytest.mark.parametrize("method", RULES)
def test_guided_backprop_and_deconvnet_from_the_weights(case, method):
    model, x, y = case
    with torch.no_grad():
        wanted = by_hand(model, x, y, RULES[method])
    assert torch.allclose(method(model, x, y), wanted.abs().amax(1, keepdim=True))
    assert torch.allclose(method(model, x, y, absolute=False), wanted.sum(1, keepdim=True))
    assert torch.allclose(method(model, x, y, channels=True), wanted)


@pytest.mark.parametrize("method", RULES)
def test_a_shared_pass_is_not_bent(case, method):
    model, x, y = case
    wanted = method(model, x, y), plain(model, x, y)
    point = x.clone().requires_grad_()
    with shared_forward(model):
        model(point)
        assert torch.allclose(method(model, point, y), wanted[0])
        (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
    assert torch.allclose(g, wanted[1])


@pytest.mark.parametrize("method", RULES)
def test_a_neuron_of_theirs(case, method):
    model, x, y = case
    point = x.clone().requires_grad_()
    with BENT[method]():
        answer = model.module[:3]((point - 0.5) / 0.25)[:, 5, 1, 3]
        (wanted,) = torch.autograd.grad(answer.sum(), point)
    assert torch.allclose(method(model, x, y, neuron="2:5,1,3", channels=True), wanted)


def test_the_map_of_a_relu_network_is_steered_by_its_smooth_steps(case):
    """Its exact derivative is zero; the smooth one leads downhill."""
    model, x, y = case
    point = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(guided_backprop(model, point, y, double_backward="exact").square().sum(), point)
    assert (g == 0).all()
    (g,) = torch.autograd.grad(deconvnet(model, point, y).square().sum(), point)
    assert (g == 0).all()
    with smooth_relu(1e-2):
        (g,) = torch.autograd.grad(guided_backprop(model, point, y, double_backward="exact").square().sum(), point)
    assert (g != 0).any()
    goal = guided_backprop(model, x.flip(0), y)
    loss = lambda z: (guided_backprop(model, z, y) - goal).square().sum((1, 2, 3))  # noqa: E731
    (g,) = torch.autograd.grad(loss(point).sum(), point)
    with torch.no_grad():
        before, after = loss(x), loss(x - 1e-2 * g.sign())
    assert after.sum() < before.sum()
    with pytest.raises(Unsupported, match="choices: smooth, exact"):
        guided_backprop(model, x, y, double_backward="finite_difference")


@pytest.mark.parametrize("method", [gradient, gradient_input])
def test_the_smooth_curvature_of_a_gradient(network, case, method):
    """Exact where the network is smooth; where it has kinks the map stays, and its slope is as if they were smooth."""
    model, x, y = case
    point = x.clone().requires_grad_()
    slopes = {}
    for kind in ("exact", "smooth"):
        shown = method(network("smooth", torch.float64), point, y, double_backward=kind)
        (slopes[kind],) = torch.autograd.grad(shown.square().sum(), point)
    assert torch.allclose(slopes["smooth"], slopes["exact"])
    with smooth_relu(1e-2):  # whose steps are smooth already
        assert torch.equal(method(model, x, y, double_backward="smooth"), method(model, x, y))
    with shared_forward(model):
        model(point)
        shown = method(model, point, y, double_backward="smooth")
    assert torch.equal(shown, method(model, x, y))
    goal = method(model, x.flip(0), y)
    (g,) = torch.autograd.grad((shown - goal).square().sum(), point)
    with torch.no_grad():
        step = (method(model, x - 1e-2 * g.sign(), y) - goal).square().sum()
    assert step < (shown - goal).square().sum()


# --- all of them -----------------------------------------------------------------------------------------------------


class Broken(nn.Module):
    """A root, whose derivative at zero is infinite, of the distance of the first pixel from black."""

    def forward(self, x):
        return x.sum((1, 2, 3))[:, None] + (x[:, 0, 0, 0].square().sqrt())[:, None] * torch.ones(4).to(x)


@pytest.mark.parametrize(
    "method", [gradient, gradient_input, guided_backprop, deconvnet, integrated_gradients, partial(smoothed, noise=0)]
)
def test_nan_gradients_are_said(case, method):
    _, x, y = case
    x[1:3, 0, 0, 0] = 0
    with pytest.raises(ModelError, match=r"gradient is NaN for \d+"):
        method(Broken(), x, y)


def test_how_many_gradients_are_nan(case):
    _, x, y = case
    x[1:3, 0, 0, 0] = 0
    for method in (gradient, integrated_gradients):
        with pytest.raises(ModelError, match="NaN for 2 of 4"):
            method(Broken(), x, y)


def test_a_nan_answer_is_said_even_where_its_gradient_is_a_number(case):
    model, x, _ = case
    broken = lambda z: model(z) + torch.tensor([1.0, torch.nan, torch.inf, 0.0])  # noqa: E731
    for y_wrong, word in (([0, 1, 1, 1], "NaN for 3 of 4"), ([2, 3, 0, 3], "infinite for 1 of 4")):
        wrong = uf.Classifier(nn.Sequential(Lambda(broken)))
        with pytest.raises(ModelError, match=word):
            gradient(wrong, x, torch.tensor(y_wrong))


@pytest.mark.parametrize("method", [integrated_gradients, smoothed])
def test_too_few_classes(case, method):
    model, x, y = case
    with pytest.raises(DataError, match=r"must be int64 \[4\]"):
        method(model, x, y[:3])


PEERS = {
    "gradient": (partial(gradient, absolute=False), "Saliency", {"abs": False}),
    "absolute gradient": (gradient, "Saliency", {}),
    "gradient_input": (gradient_input, "InputXGradient", {}),
    "guided_backprop": (partial(guided_backprop, absolute=False), "GuidedBackprop", {}),
    "deconvnet": (partial(deconvnet, absolute=False), "Deconvolution", {}),
}
for _ours, _theirs in zip(
    QUADRATURES, ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle"), strict=True
):
    PEERS[f"integrated gradients, {_ours}"] = (
        partial(integrated_gradients, quadrature=_ours, steps=11),
        "IntegratedGradients",
        {"method": _theirs, "n_steps": 11},
    )


def captums(name, model, x, y, options):
    attr = pytest.importorskip("captum.attr")
    model.requires_grad_(True)
    told = getattr(attr, name)(model).attribute(x.clone().requires_grad_(), target=y, **options).detach()
    return told.abs().amax(1, keepdim=True) if name == "Saliency" and not options else told.sum(1, keepdim=True)


@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")
@pytest.mark.parametrize("name", PEERS)
def test_equal_to_captum(case, name):
    model, x, y = case
    method, theirs, options = PEERS[name]
    told = captums(theirs, model, x, y, options)
    assert (method(model, x, y) - told).abs().max() <= 1e-4 * told.abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")
@pytest.mark.parametrize("name", PEERS)
def test_equal_to_captum_on_a_photograph(data_root, name):
    """In float64: in float32 some activation lies so near its kink that the size of a batch decides."""
    pytest.importorskip("captum.attr")
    folder, arch = data_root / "weights", "mobilenet_v1_075_imagenet"
    model = uf.models.load(f"{folder / arch}.safetensors?arch={arch}").double()
    for module in list(model.modules()):
        for part, child in module.named_children():
            if isinstance(child, nn.ReLU6):  # the peer bends nothing but nn.ReLU
                setattr(module, part, nn.ReLU())
    batch = uf.data.load(f"folder:{data_root / 'imagenet_sample'}?size=64", n=2)[:]
    x, y = batch.x.double(), batch.y
    method, theirs, options = PEERS[name]
    told = captums(theirs, model, x, y, options)
    assert (method(model, x, y) - told).abs().max() <= 1e-4 * told.abs().max()
