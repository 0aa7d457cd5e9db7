"""Whatever model, images and mode a caller has, a method gives the right result or says in one line what is wrong."""

from __future__ import annotations

import sys
import threading
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import underfire as uf
from underfire.catalog import callers
from underfire.errors import DataError, InputError, ModelError, Unsupported
from underfire.measures import prediction
from underfire.testing.any_model import Around

X = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def linear(classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).eval()


NET = linear()
Y = NET(X).argmax(1)


def around(answer: Any) -> Around:
    return Around(NET, answer).eval()


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (lambda net, x: {"logits": net(x), "loss": None}, None),
        (lambda net, x: {"scores": net(x)}, None),
        (lambda net, x: SimpleNamespace(logits=net(x)), None),
        (lambda net, x: (net(x), None), None),
        (lambda net, x: (net(x), net(x).relu()), 0),
        (lambda net, x: {"a": net(x), "b": net(x).relu()}, "a"),
    ],
)
def test_logits_are_read_out_of_an_answer(answer: Any, output: Any) -> None:
    assert torch.equal(uf.Classifier(around(answer), output=output)(X), NET(X))


@pytest.mark.parametrize(
    ("answer", "output", "word"),
    [
        (lambda net, x: net(x)[:, :1], None, "binary"),
        (lambda net, x: net(x)[:, 0], None, "binary"),
        (lambda net, x: net(x), "binary", "one number per image"),
        (lambda net, x: (net(x), net(x).relu()), None, "output=NUMBER"),
        (lambda net, x: {"a": net(x)[:, 0]}, None, "output=NAME"),
        (lambda net, x: net(x), "probabilities", "sum to 1"),
        (lambda net, x: net(x).argmax(1), None, "int64"),
        (lambda net, x: net(x).to("meta"), None, "meta"),
        (lambda net, x: 3, None, "int"),
    ],
)
def test_an_answer_without_logits_is_refused(answer: Any, output: Any, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        uf.Classifier(around(answer), output=output)(X)


def test_one_logit_is_two_classes() -> None:
    logits = uf.Classifier(around(lambda net, x: net(x)[:, :1]), output="binary")(X)
    assert torch.allclose(logits.softmax(1)[:, 1], NET(X)[:, 0].sigmoid())
    assert torch.allclose(logits[:, 1] - logits[:, 0], NET(X)[:, 0])


def test_probabilities_are_noticed_and_their_logarithm_is_attacked_as_the_logits_are() -> None:
    soft = around(lambda net, x: net(x).softmax(1))
    for method in (uf.attacks.pgd, uf.interpreters.gradient, uf.interpreters.rise):
        with pytest.raises(ModelError, match="probabilities"):
            method(soft, X, Y)
    model = uf.Classifier(soft, output="probabilities")
    margins = [prediction.margin(m(X), Y) for m in (model, uf.Classifier(NET))]
    assert torch.allclose(*margins, atol=1e-5)


def test_channels_of_the_normalisation_must_be_those_of_the_images() -> None:
    with pytest.raises(ModelError, match="3 channels"):
        uf.Classifier(NET, mean=[0.5] * 3)(X[:, :1])


def test_an_error_of_the_network_is_one_line() -> None:
    def answer(net: nn.Module, x: Tensor) -> Tensor:
        raise ValueError("image size 4\nis wrong")

    for call in (uf.attacks.pgd, uf.attacks.boundary, uf.interpreters.gradient):
        with pytest.raises(uf.UnderfireError, match="image size 4") as found:
            call(around(answer), X, Y)
        assert "\n" not in str(found.value)


def test_reentrant_checkpoints_are_refused() -> None:
    model = around(lambda net, x: checkpoint(net, x, use_reentrant=True))
    with pytest.raises(Unsupported, match="use_reentrant"):
        uf.attacks.pgd(model, X, Y, steps=1)


def test_a_saturated_loss_is_no_missing_gradient() -> None:
    with torch.no_grad():
        confident = around(lambda net, x: 1e4 * net(x))
    x_adv = uf.attacks.fgsm(confident, X, Y, objective=uf.ascent.objectives.cross_entropy())
    assert x_adv.shape == X.shape


def test_a_classifier_made_in_inference_mode_can_be_attacked() -> None:
    with torch.inference_mode():
        model = uf.Classifier(NET, mean=0.5, std=0.5)
    assert (model(uf.attacks.pgd(model, X, Y, eps=0.5, steps=5)).argmax(1) != Y).all()


def test_predict_calls_neither_train_nor_eval() -> None:
    class Adapter(nn.Module):
        calls = 0

        def train(self, mode: bool = True) -> Adapter:
            self.calls += 1
            return super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            return NET(x)

    module = Adapter()
    uf.Classifier(module).predict(X)
    uf.attacks.fgsm(module, X, Y)
    assert module.calls == 0 and module.training


def test_threads_leave_the_mode_and_the_weights_as_they_were() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.Dropout(0.5)).train()
    model = uf.Classifier(module)
    work = [lambda: uf.attacks.pgd(model, X, Y, steps=8), lambda: model.predict(X)] * 3
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(m.training for m in module.modules()) and all(p.requires_grad for p in module.parameters())


def test_the_class_may_be_kept_by_an_attack_on_the_explanation_alone() -> None:
    options = {"interpreter": uf.interpreters.gradient, "steps": 2, "warm_steps": 0}
    assert (NET(uf.attacks.adv2(NET, X, Y, goal=Y, keep_class=True, **options)).argmax(1) == Y).all()
    for attack in (partial(uf.attacks.adv2, **options), uf.attacks.pgd):
        with pytest.raises(InputError, match="goal"):
            attack(NET, X, Y, goal=Y)


def test_labels_and_sizes_may_be_plain_values() -> None:
    wanted = uf.attacks.pgd(NET, X, Y, eps=8 / 255, steps=2)
    for y in (Y.tolist(), Y.numpy(), Y.to(torch.int32)):
        assert torch.equal(uf.attacks.pgd(NET, X, y, eps="8/255", steps=2), wanted)
    with pytest.raises(DataError, match=r"torch\.Tensor"):
        uf.attacks.pgd(NET, X.numpy(), Y)


def test_an_answer_that_is_not_finite_is_no_success_and_is_said() -> None:
    model = around(lambda net, x: torch.where((x.flatten(1).amax(1) > 0.92)[:, None], float("nan"), net(x)))
    for name, options in {"pgd": {"steps": 5}, "square": {"queries": 30}, "one_pixel": {"steps": 2}}.items():
        more = {} if name == "one_pixel" else {"eps": 0.5}
        with pytest.warns(RuntimeWarning, match="NaN"):
            x_adv = uf.find("attack", name)(model, X, Y, **options, **more)
        assert model(x_adv).isfinite().all()
    assert not prediction.success(torch.full((4, 4), float("nan")), Y).any()


def test_a_method_is_checked_where_no_method_of_underfire_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(model: nn.Module, x: Tensor, y: Tensor, *, goal: Tensor | None = None) -> Tensor:
        return x

    monkeypatch.setattr("underfire.catalog.registry._CARDS", {})
    for name in ("attack", "interpreter"):
        monkeypatch.delitem(callers, name)
    monkeypatch.setattr(uf, "checked_calls", uf.checked_calls)
    monkeypatch.delitem(sys.modules, "underfire.checked_calls")
    attack = uf.card("attack", paper="Example, Own, 2026", goals=("targeted",))(own)
    with pytest.raises(InputError, match="equals the label"):
        attack(NET, X, Y, goal=Y)


def test_weights_made_in_inference_mode_are_as_good_as_others() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    with torch.inference_mode():
        made = deepcopy(net.eval())
    assert made[0].weight.is_inference()
    quick = (uf.attacks.fgsm, uf.interpreters.grad_cam, uf.interpreters.guided_backprop, uf.interpreters.occlusion)
    for method in quick:
        assert torch.equal(method(made, X, Y), method(net, X, Y))
    assert made[0].weight.is_inference() and made[1].running_mean.is_inference()


def _quantised(kind: str) -> nn.Module:
    from torch.ao import quantization

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)).eval()
    if kind == "dynamic":  # the linear layer counts in int8, the convolution does not
        return quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    whole = quantization.QuantWrapper(net)
    whole.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    watched = quantization.prepare(whole)
    watched(X)
    whole = quantization.convert(watched)
    return torch.jit.trace(whole, X) if kind == "TorchScript" else whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(torch.backends.quantized.engine == "none", reason="torch was built without int8 layers")
@pytest.mark.parametrize("kind", ["dynamic", "static", "TorchScript"])
def test_a_quantised_network_has_no_gradient_and_can_be_asked(kind: str) -> None:
    net = _quantised(kind)
    y = net(X).argmax(1)
    for method in (uf.attacks.pgd, uf.attacks.deepfool, uf.interpreters.gradient, uf.interpreters.grad_cam):
        if kind == "TorchScript" and method is uf.interpreters.grad_cam:
            continue  # its layers cannot be read
        with pytest.raises(Unsupported, match="no gradient with respect to"):
            method(net, X, y)
    assert bool((net(uf.attacks.square(net, X, y, eps=0.5, queries=100)).argmax(1) != y).any())
    assert bool(uf.interpreters.occlusion(net, X, y, patch=2).any())
    assert bool(uf.interpreters.rise(net, X, y, samples=20, cells=2).any())
    if kind != "TorchScript":
        assert uf.interpreters.score_cam(net, X, y).shape == (4, 1, 4, 4)
