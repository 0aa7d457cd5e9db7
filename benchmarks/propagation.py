"""Compare LRP, DeepLIFT, FullGrad, LayerCAM and HiResCAM with one pass forward and backward, and with peers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.setting import correct, declare_missing_operators, mnist, mobilenet, zoo
from benchmarks.timing import Row, in_turn, one_unit, ratio, spread
from underfire.hooks import frozen, last_spatial_layer, layer, unwrap
from underfire.interpreters import deep_lift, full_grad, hires_cam, layer_cam, lrp
from underfire.model import Classifier

IMAGES, DIGITS, ROUNDS = 4, 128, 3
PASSES = "a pass forward and backward"


def _captums(name: str, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Any]:
    """Return a function that runs Captum's LRP with its default rule, ε, or its DeepLIFT."""
    from captum import attr
    from captum.attr._utils.lrp_rules import EpsilonRule

    def explain() -> Any:
        with frozen(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the hooks that it sets
            for module in model.modules():
                if isinstance(module, nn.Flatten) and name == "LRP":
                    module.rule = EpsilonRule()  # it has none for this layer, and forgets what it was given
            return getattr(attr, name)(model).attribute(x.clone(), target=y)

    return explain


def propagated() -> dict[str, Any]:
    """Measure the seconds of LRP and DeepLIFT for a batch, over those of one pass forward and backward."""
    model, x, y = correct(
        zoo("mnist_small_cnn", "trades"), DIGITS, images=mnist()
    )  # of layers that Captum's LRP has rules for
    body = unwrap(model)
    contestants: dict[str, Callable[[], Any]] = {
        PASSES: one_unit(model, x, y),
        "LRP, ε": partial(lrp, model, x, y, composite="epsilon"),
        "LRP, ε, of Captum": _captums("LRP", body, x, y),
        "LRP, ε, z⁺ and flat": partial(lrp, model, x, y),
        "DeepLIFT": partial(deep_lift, model, x, y),
        "DeepLIFT of Captum": _captums("DeepLift", body, x, y),
    }
    return _measured(contestants, f"a network of four convolutions for MNIST, {DIGITS} images")


def _peers(name: str, model: Classifier, x: Tensor, y: Tensor) -> Callable[[], Any]:
    """Return a function that runs a method of pytorch-grad-cam at the last layer with space."""
    declare_missing_operators()
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    last = [] if name == "FullGrad" else [layer(model, last_spatial_layer(model, x))]
    targets = [ClassifierOutputTarget(int(c)) for c in y]

    def explain() -> Any:
        with getattr(pytorch_grad_cam, name)(model=model, target_layers=last) as method:
            return method(input_tensor=x, targets=targets)

    return explain


def weighed() -> dict[str, Any]:
    """Measure the seconds of FullGrad, LayerCAM and HiResCAM for a batch, over one pass forward and backward."""
    model, x, y = mobilenet(IMAGES)
    contestants: dict[str, Callable[[], Any]] = {PASSES: one_unit(model, x, y)}
    for name, ours, theirs in (
        ("FullGrad", full_grad, "FullGrad"),
        ("LayerCAM", layer_cam, "LayerCAM"),
        ("HiResCAM", hires_cam, "HiResCAM"),
    ):
        contestants[name] = partial(ours, model, x, y)
        contestants[f"{name} of pytorch-grad-cam"] = _peers(theirs, model, x, y)
    return _measured(contestants, f"MobileNet 224, {IMAGES} images")


def _measured(contestants: dict[str, Callable[[], Any]], network: str) -> dict[str, Any]:
    seconds = in_turn(contestants, rounds=ROUNDS)
    return {
        "setting": network,
        "seconds": seconds,
        "over one pass": {name: ratio(v, seconds[PASSES]) for name, v in seconds.items() if name != PASSES},
    }


#: The most that a method may take, in passes forward and backward.
WANTED = {
    "LRP, ε": "below Captum's",
    "LRP, ε, z⁺ and flat": "≤ 3",
    "DeepLIFT": "below Captum's",
    "FullGrad": "≤ 4",
    "LayerCAM": "≤ 0.6",
    "HiResCAM": "≤ 0.6",
}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row with the time of each method, ours and the peers'."""
    setting = f"{found['setting']}: time over {PASSES}"
    return [
        (f"{name}, {setting}", spread(value), WANTED.get(name, "the peer"))
        for name, value in found["over one pass"].items()
    ]
