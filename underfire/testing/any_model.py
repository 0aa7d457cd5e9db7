"""The promises of an attack for any model and in any gradient mode, checked on tiny models with quick settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError, Unsupported
from underfire.model import Classifier
from underfire.testing.models import BIG, toy_batch, toy_classifier
from underfire.testing.promises import default_dtype, refused, require

if TYPE_CHECKING:
    from underfire.testing.attack import Subject


class Around(nn.Module):
    """A module that answers with a function of its input and the network inside it."""

    def __init__(self, network: nn.Module, answer: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.network, self.answer = network, answer

    def forward(self, x: Tensor) -> Any:
        """Return `answer(network, x)`."""
        return self.answer(self.network, x)


def _without(mode: Any) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return an answer that is computed in a mode without gradients."""

    def answer(network: nn.Module, x: Tensor) -> Tensor:
        with mode():
            return network(x)

    return answer


def _in_place(network: nn.Module, x: Tensor) -> Tensor:
    return network(x.sub_(0.1).mul_(1.5))


def _out_of_place(network: nn.Module, x: Tensor) -> Tensor:
    return network((x - 0.1) * 1.5)


#: Networks without a gradient with respect to their input.
BLIND: Mapping[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "runs under no_grad": _without(torch.no_grad),
    "runs in inference_mode": _without(torch.inference_mode),
    "detaches its answer": lambda network, x: network(x).detach(),
    "rounds its image": lambda network, x: network((x * 255).round() / 255),
}


def _setting(subject: Subject, answer: Callable[[nn.Module, Tensor], Any]) -> tuple[Around, Tensor, Tensor]:
    """Return a module around a tiny network, a batch of two, and the classes that the network predicts."""
    shape = (3, 6, 6) if subject.domain == "image" else ()
    plain = toy_classifier(subject.domain, shape=shape)
    x = toy_batch(subject.domain, 2, shape=shape, dtype=torch.float32)
    module = Around(plain.module, answer)
    module.domain = plain.domain  # type: ignore[assignment]
    return module, x, plain.predict(x).argmax(1)


def run_quickly(subject: Subject, model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
    """Run the attack for very few steps."""
    short: dict[str, Any] = {name: 2 for name in subject.parameters if name.endswith("steps")}
    if "width" in subject.parameters:
        short["width"] = 2
    # a small share of the pixels of a tiny image would be no pixel
    quick = {name: value for name, value in subject.facts.quick.items() if name != "share"}
    return subject(model, x, y, **{**short, **quick, **changes})


def result_without_graph(subject: Subject) -> None:
    """Check that the result carries no graph if the images require a gradient, and that no gradient is written."""
    model, x, y = _setting(subject, lambda network, x: network(x))
    x.requires_grad_()
    x_adv = run_quickly(subject, model, x, y)
    require(not x_adv.requires_grad, "the result must not require a gradient")
    require(x.grad is None, "a gradient was written into x.grad")


def same_in_every_gradient_mode(subject: Subject) -> None:
    """Check that the result is the same inside `torch.no_grad()` and `torch.inference_mode()`."""
    model, x, y = _setting(subject, lambda network, x: network(x))
    outside = run_quickly(subject, model, x, y)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            inside = run_quickly(subject, model, x.clone(), y.clone())
        require(torch.equal(inside, outside), f"another result inside torch.{mode.__name__}()")


def same_in_every_default_dtype(subject: Subject) -> None:
    """Check that the result does not depend on torch's default dtype, except for rounding."""
    model, x, y = _setting(subject, lambda network, x: network(x))
    outside = run_quickly(subject, model, x, y)
    with default_dtype(torch.float64):
        inside = run_quickly(subject, model, x, y)
    require(inside.dtype == x.dtype, f"with another default dtype, the result is {inside.dtype}")
    require(torch.allclose(inside, outside, atol=1e-6), "another result with the default dtype float64")


def not_finite_is_no_success(subject: Subject) -> None:
    """Check the result where every changed image gives NaN: finite, and from an attack of minimum size the image.

    An attack whose interpreter refuses such a model may raise.
    """
    model, x, y = _setting(subject, lambda network, x: network(x))
    clean = x.clone()

    def answer(network: nn.Module, seen: Tensor) -> Tensor:
        changed = (seen[:, None] != clean[None]).flatten(2).any(2).all(1)
        return torch.where(changed[:, None], float("nan"), network(seen))

    model.answer = answer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            x_adv = run_quickly(subject, model, x, y)
        except (ModelError, Unsupported):
            return
    require(torch.isfinite(x_adv), "a value is not finite")
    require(not subject.facts.minimal or torch.equal(x_adv, x), "an image whose answer is NaN counted as a success")


def model_without_gradient(subject: Subject) -> None:
    """Check that a white-box attack raises Unsupported for a model without gradient, and that another one runs."""
    for what, answer in BLIND.items():
        model, x, y = _setting(subject, answer)
        if subject.facts.knowledge == "black-box":
            require(run_quickly(subject, model, x, y).shape == x.shape, f"the model {what}: a wrong shape")
            continue
        with refused(Unsupported, "no gradient with respect to its input", f"a model that {what}"):
            run_quickly(subject, model, x, y)


def network_that_writes_into_its_input(subject: Subject) -> None:
    """Check that a network with in-place operations gets its own copy: `x` stays, and the result is the same."""
    model, x, y = _setting(subject, _in_place)
    twin, before = Around(model.network, _out_of_place), x.clone()
    twin.domain = model.domain
    result = run_quickly(subject, model, x, y)
    require(torch.equal(x, before), "the network wrote into the caller's images")
    require(torch.allclose(result, run_quickly(subject, twin, x, y), atol=1e-5), "another result than out of place")


def any_answer(subject: Subject) -> None:
    """Check that a tuple and a mapping with the logits are read, and that one number per image is refused."""
    model, x, y = _setting(subject, lambda network, x: network(x))
    plain = run_quickly(subject, model, x, y)
    for answer in (lambda network, x: (network(x), None), lambda network, x: {"logits": network(x)}):
        model.answer = answer
        same = torch.equal(run_quickly(subject, model, x, y), plain)
        require(same, "another result for logits in a tuple or mapping")
    model.answer = lambda network, x: network(x)[:, :1]
    with refused(ModelError, "binary", "one number per image"):
        run_quickly(subject, model, x, y)
    binary = Classifier(model, domain=model.domain, output="binary")  # type: ignore[arg-type]
    require(torch.isfinite(run_quickly(subject, binary, x, 0 * y)), "one logit as two classes: a value is not finite")


def saturated_model(subject: Subject) -> None:
    """Check that the attack fools a model that is so confident that its probabilities have no gradient."""
    if subject.facts.keeps_prediction:
        return
    model, x, y = subject.setting()
    _scale_last(model, 1e4)
    x_adv = subject(model, x, y, eps=BIG.get(subject.facts.norms[0], 1.0))
    share = float((model(x_adv).argmax(1) != y).float().mean())
    require(share >= 0.6, f"only {share:.0%} of samples fool a model whose cross-entropy has no gradient")


def no_success_where_none_is(subject: Subject) -> None:
    """Check the result for a model that nothing fools: finite, and from an attack of minimum size the clean input."""
    model, x, y = subject.setting()
    _scale_last(model, 1e-3)
    with torch.no_grad():
        layers = list(model.module.children())
        layers[-1].bias.copy_(torch.tensor([100.0, 0.0, 0.0, 0.0]))  # type: ignore[operator]
    y = torch.zeros_like(y)
    x_adv = subject(model, x, y)
    require(model(x_adv).argmax(1) == y, "a model that cannot be fooled was fooled")
    require(torch.isfinite(x_adv), "a value is not finite")
    require(not subject.facts.minimal or torch.equal(x_adv, x), "without a success the clean input must come back")


def _scale_last(model: Classifier, factor: float) -> None:
    """Multiply the weights and biases of the last layer by a factor."""
    with torch.no_grad():
        for parameter in list(model.module.children())[-1].parameters():
            parameter.mul_(factor)


PROMISES: tuple[Callable[[Subject], None], ...] = (
    saturated_model,
    no_success_where_none_is,
    result_without_graph,
    same_in_every_gradient_mode,
    same_in_every_default_dtype,
    not_finite_is_no_success,
    model_without_gradient,
    network_that_writes_into_its_input,
    any_answer,
)
