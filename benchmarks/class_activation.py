"""Compare Score-CAM and Grad-CAM on MobileNet 224 with bare passes and other libraries."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import highest, in_own_process
from benchmarks.setting import declare_missing_operators, mobilenet
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.attribution.chunks import chunk_within
from underfire.hooks import activations, frozen, last_spatial_layer, layer
from underfire.interpreters import grad_cam, score_cam
from underfire.model import Classifier

IMAGES = 16  # images for Grad-CAM; Score-CAM gets one, because it takes hundreds of passes for each
TOGETHER = 2  # images whose memory is measured


def _score_cam_of_the_peer(model: Classifier, x: Tensor, y: Tensor) -> Callable[[], Any]:
    """Return a function that runs Score-CAM of pytorch-grad-cam."""
    declare_missing_operators()
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    last = layer(model, last_spatial_layer(model, x))
    targets = [ClassifierOutputTarget(int(c)) for c in y]

    def explain() -> Any:
        with contextlib.redirect_stderr(io.StringIO()), ScoreCAM(model=model, target_layers=[last]) as method:
            return method(input_tensor=x, targets=targets)

    return explain


def score_cam_of_one_image() -> dict[str, Any]:
    """Measure the time for one image over that of bare passes, and the peak memory for two, each in its own process."""
    model, x, y = mobilenet(1)
    channels = _channels(model, x)
    chunk = chunk_within(model, x, gradients=False)

    def bare() -> None:
        with torch.no_grad(), frozen(model):
            model(x)
            for part in torch.arange(channels).split(chunk):
                model(copies[: len(part)])

    copies = torch.rand(chunk, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    contestants = {
        "bare passes": bare,
        "underfire": lambda: score_cam(model, x, y),
        "pytorch-grad-cam": _score_cam_of_the_peer(model, x, y),
    }
    seconds = in_turn(contestants, rounds=3)
    words = {"underfire": "ours", "pytorch-grad-cam": "peer"}
    peaks = {name: in_own_process("benchmarks.class_activation", word) for name, word in words.items()}
    return {
        "channels": channels,
        "chunk": chunk,
        "seconds": seconds,
        "over the bare passes": {k: ratio(v, seconds["bare passes"]) for k, v in seconds.items() if k != "bare passes"},
        "images together": TOGETHER,
        "peak MB above start": peaks,
        "memory over the peer's": peaks["underfire"] / peaks["pytorch-grad-cam"],
    }


def _channels(model: Classifier, x: Tensor) -> int:
    """Return the number of feature maps of the last spatial layer."""
    name = last_spatial_layer(model, x)
    with torch.no_grad():
        return activations(model, x, [name])[1][name].shape[1]


def grad_cam_of_a_batch() -> dict[str, Any]:
    """Measure the time for a batch over that of a forward pass and a backward pass to the layer."""
    from captum.attr import LayerGradCam

    model, x, y = mobilenet(IMAGES)
    last = layer(model, last_spatial_layer(model, x))

    def bare() -> None:
        read: list[Tensor] = []

        def begin(_: Any, __: Any, output: Tensor) -> Tensor:
            read.append(output.detach().requires_grad_())
            return read[-1]

        handle = last.register_forward_hook(begin)
        with frozen(model):
            total = model(x).gather(1, y[:, None]).sum()
        torch.autograd.grad(total, read)
        handle.remove()

    contestants = {
        "forward and tail backward": bare,
        "underfire": lambda: grad_cam(model, x, y),
        "captum": lambda: LayerGradCam(model, last).attribute(x, target=y, relu_attributions=True),
    }
    seconds = in_turn(contestants, rounds=15)
    bare_seconds = seconds["forward and tail backward"]
    return {
        "images": IMAGES,
        "seconds": seconds,
        "over forward and tail backward": {k: ratio(seconds[k], bare_seconds) for k in ("underfire", "captum")},
        "over captum": ratio(seconds["underfire"], seconds["captum"]),
    }


def rows_score_cam(found: dict[str, Any]) -> list[Row]:
    """Return rows with time and memory."""
    what = f"Score-CAM, MobileNet 224, {found['channels']} channels, one image"
    over, peaks = found["over the bare passes"], found["peak MB above start"]
    memory = found["memory over the peer's"]
    amounts = f"{peaks['underfire']:.0f} MB against {peaks['pytorch-grad-cam']:.0f} MB"
    return [
        (f"{what}: time over bare passes", spread(over["underfire"]), "≤ 1.05"),
        (f"{what}, pytorch-grad-cam: time over bare passes", spread(over["pytorch-grad-cam"]), "the peer"),
        (
            f"Score-CAM, MobileNet 224, {found['images together']} images: peak memory over that of pytorch-grad-cam",
            f"{memory:.3f} ({amounts})",
            "≤ 0.1",
        ),
    ]


def rows_grad_cam(found: dict[str, Any]) -> list[Row]:
    """Return rows with the times."""
    what = f"Grad-CAM, MobileNet 224, {found['images']} images"
    over = found["over forward and tail backward"]
    return [
        (f"{what}: time over a forward pass and a backward pass to the layer", spread(over["underfire"]), "≤ 1.1"),
        (f"{what}, Captum: time over these passes", spread(over["captum"]), "the peer"),
    ]


if __name__ == "__main__":
    network, images, labels = mobilenet(TOGETHER)
    explain = {
        "ours": lambda: score_cam(network, images, labels),
        "peer": _score_cam_of_the_peer(network, images, labels),
    }
    with torch.no_grad():
        network(images)  # allocate what any pass needs before the measurement
    print(highest(explain[sys.argv[1]]))
