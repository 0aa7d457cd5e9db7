"""Compare with other libraries by rows of docs/benchmarks.md (used by generate.py)."""

from __future__ import annotations

from pathlib import Path

from method_pages import table

_PGD = "PGD-40 until success, ResNet-20, 256 images, {}: forward+backward units"
_AUTO = "standard AutoAttack, eps 8/255, {}: robust accuracy"
_UNITS = "{}: forward+backward units of the whole batch"
_MINIMUM = "minimum size in {} on {}, best attack of {{}}: optimality"
_OCCLUSION = "occlusion, patch 32, stride 16, MobileNet 224, time over 169 bare forward passes: {}"
_IG = "integrated gradients, 50 steps, MobileNet 224, 4 images{}: time over bare passes"
_GRAD_CAM = "Grad-CAM, MobileNet 224, 16 images{}: time over {}"
_MNIST = "a network of four convolutions for MNIST, 128 images: time over a pass forward and backward"
_SCORE_CAM = "Score-CAM, MobileNet 224, 768 channels, one image{}: time over bare passes"
_PHOTOS = "{}, MobileNet 224, 4 images: time over a pass forward and backward"
_QUANTUS = "deletion curve, 225 points, MobileNet 224, 2 images: times as fast as Quantus with {}"
_LIME = "LIME, 1000 samples, ResNet-20, 10 images: time of the lime package over that of underfire"


def _pair(text: str, other: str) -> tuple[str, str]:
    return text.format("underfire"), text.format(other)


#: Library, what is compared, and two measurements of the page: ours and the library's (empty where the row is a ratio).
ROWS: tuple[tuple[str, str, tuple[str, str]], ...] = (
    (
        "torchattacks",
        "PGD, 40 steps, stops at success, undefended network: passes of the batch",
        _pair(_PGD, "torchattacks"),
    ),
    (
        "torchattacks",
        "PGD, 20 steps on every image: passes of the batch",
        _pair("PGD 20, 16 images, ResNet-32, {}: forward+backward units", "torchattacks"),
    ),
    (
        "torchattacks",
        "AutoAttack, undefended network",
        _pair(_AUTO.format("ResNet-20, 128 images, {}"), "torchattacks"),
    ),
    (
        "torchattacks",
        "AutoAttack, hardened network",
        _pair(_AUTO.format("adversarially trained WResnet, 40 images, {}"), "torchattacks"),
    ),
    ("Foolbox", "PGD as in the first row: passes of the batch", _pair(_PGD, "foolbox")),
    (
        "Foolbox",
        "DeepFool: passes of the batch",
        _pair(_UNITS.format("DeepFool L2, 50 steps, ResNet-20, 256 images, {}"), "foolbox"),
    ),
    (
        "Foolbox",
        "Carlini and Wagner: passes of the batch",
        _pair(_UNITS.format("C&W L2, 3 x 200 steps, ResNet-20, 256 images, {}"), "foolbox"),
    ),
    (
        "adversarial-library",
        "FMN, 20 steps on every image: passes of the batch",
        _pair("FMN L2 20, 16 images, ResNet-32, {}: forward+backward units", "adv_lib"),
    ),
    (
        "adversarial-library",
        "smallest L2, undefended network: optimality (higher is better)",
        _pair(_MINIMUM.format("l2", "resnet20, 32 images, 1000 propagations"), "adv_lib"),
    ),
    (
        "adversarial-library",
        "smallest L0, hardened network: optimality (higher is better)",
        _pair(_MINIMUM.format("l0", "wresnet_adv, 16 images, 400 propagations"), "adv_lib"),
    ),
    ("Captum", "integrated gradients: time over bare passes", (_IG.format(""), _IG.format(", Captum"))),
    (
        "Captum",
        "occlusion: time over bare passes",
        (_OCCLUSION.format("computing only what a patch can have changed"), _OCCLUSION.format("Captum")),
    ),
    (
        "Captum",
        "Grad-CAM: time over a pass to the layer and back",
        (
            _GRAD_CAM.format("", "a forward pass and a backward pass to the layer"),
            _GRAD_CAM.format(", Captum", "these passes"),
        ),
    ),
    (
        "Captum",
        "LRP: time over a pass forward and back",
        (f"LRP, ε, {_MNIST}", f"LRP, ε, of Captum, {_MNIST}"),
    ),
    (
        "Captum",
        "DeepLIFT: time over a pass forward and back",
        (f"DeepLIFT, {_MNIST}", f"DeepLIFT of Captum, {_MNIST}"),
    ),
    (
        "pytorch-grad-cam",
        "Score-CAM: time over bare passes",
        (_SCORE_CAM.format(""), _SCORE_CAM.format(", pytorch-grad-cam")),
    ),
    (
        "pytorch-grad-cam",
        "LayerCAM: time over a pass forward and back",
        (_PHOTOS.format("LayerCAM"), _PHOTOS.format("LayerCAM of pytorch-grad-cam")),
    ),
    (
        "pytorch-grad-cam",
        "FullGrad: time over a pass forward and back",
        (_PHOTOS.format("FullGrad"), _PHOTOS.format("FullGrad of pytorch-grad-cam")),
    ),
    (
        "Quantus",
        "deletion curve, with its default steps: times as fast",
        (_QUANTUS.format("its default steps (extrapolated)"), ""),
    ),
    ("Quantus", "deletion curve, with the same steps: times as fast", (_QUANTUS.format("the same steps"), "")),
    ("lime", "LIME, 1,000 samples: times as fast", (_LIME, "")),
)


def peers(page: Path) -> str:
    """Return the rows of the page of benchmarks that compare with a library.

    Raises:
        KeyError: a measurement is no longer on the page.
    """
    lines = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    values = {line[0]: line[1] for line in lines}
    rows = [(name, what, values[ours], values[other] if other else "1") for name, what, (ours, other) in ROWS]
    return table(("library", "measurement", "underfire", "the library"), rows)
