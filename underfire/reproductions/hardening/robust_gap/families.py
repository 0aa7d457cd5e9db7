"""The families of networks whose gap is measured, and the audit of one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from underfire.reproductions.hardening.training_mnist.networks import Trained
from underfire.reproductions.hardening.training_mnist.recipes import RECIPES
from underfire.reproductions.registry import Setting

USUAL = "normal"
"""The training without a defence, with which the others are compared."""

TRAININGS = {
    USUAL: "Normal",
    "adv": "Adv (PGD)",
    "trades": "TRADES",
    "ig": "IG-Norm",
    "igsum": "IG-Norm-Sum",
    "intone": "Int-one-class",
    "int": "Int",
    "intadv": "Int-Adv",
    "int2": "Int2",
    "int2adv": "Int2-Adv",
    "intig": "Int-IG",
    "intigadv": "Int-IG-Adv",
}
"""The trainings by the last part of the names of the networks of Boopathy et al."""

_ROBUST = tuple(name for name in TRAININGS if not name.startswith(("ig", "intig")))
_IG = {"name": "integrated_gradients", "steps": 5}


@dataclass(frozen=True)
class Family:
    """Networks of one architecture, on the same images.

    Attributes:
        title: its name on the page.
        weights: the file of a network below the folder of data, or of the work folder; `{name}` is the training.
        arch: the architecture; `{name}` likewise.
        names: the trainings.
        data: the URI of the images.
        n: number of images of a usual run.
        eps: the sizes of the attacks.
        maps: the interpreters by label.
        usual: the training that the others are compared with; None compares none.
    """

    title: str
    weights: str
    arch: str
    names: tuple[str, ...]
    data: str
    n: int
    eps: tuple[float | str, ...]
    maps: Mapping[str, Any] = field(default_factory=dict)
    usual: str | None = USUAL


_MNIST: dict[str, Any] = {"data": "mnist:{root}/mnist", "eps": (0.2, 0.3, 0.4)}
_SMALL: dict[str, Any] = {**_MNIST, "arch": "mnist_small_normal", "n": 100}
FAMILIES = {
    "mnist": Family(
        title="MNIST Small, published",
        weights="{root}/weights/interpretability_aware/mnist_small_{name}.safetensors",
        names=tuple(TRAININGS),
        maps={"GRAD": "gradient", "CAM": "cam", "IG": _IG},
        **_SMALL,
    ),
    "mnist-trained": Family(
        title="MNIST Small, trained here",
        weights="{trained}",
        names=tuple(RECIPES),
        maps={"GRAD": "gradient", "CAM": "cam"},
        **_SMALL,
    ),
    "trades": Family(
        title="MNIST, network of TRADES, published",
        weights="{root}/weights/trades/mnist_small_cnn.safetensors",
        arch="mnist_small_cnn",
        names=("trades",),
        n=100,
        maps={"GRAD": "gradient", "IG": _IG},
        usual=None,
        **_MNIST,
    ),
    "cifar10": Family(
        title="CIFAR-10 WResnet, published",
        weights="{root}/weights/interpretability_aware/cifar10_wresnet_{name}.safetensors",
        arch="cifar10_wresnet_normal",
        names=_ROBUST,
        data="parquet:{root}/cifar10-test.parquet",
        n=24,
        eps=("4/255", "8/255"),
        maps={"GRAD": "gradient", "CAM": "cam"},
    ),
}
"""The families by the names of the parts."""

STEPS, STEPS_IG, WARM_STEPS = 60, 20, 20
"""Steps of the attacks on a map, of those on IG, and of the first phase of ADV²."""


def spec(family: Family, name: str, setting: Setting) -> dict[str, Any]:
    """Return the audit of one network."""
    quick = setting.quick
    sizes = list(family.eps[-1:] if quick else family.eps)
    n = {"quick": 4, "default": family.n, "full": 1000}[setting.scale]
    interpreters = [
        {**({"name": one} if isinstance(one, str) else one), "label": label} for label, one in family.maps.items()
    ]
    attacks: list[dict[str, Any]] = [{"name": "pgd", "label": "PGD", "eps": sizes, "steps": 4 if quick else 80}]
    for one in interpreters:
        steps = 2 if quick else STEPS_IG if one["name"] == _IG["name"] else STEPS
        shared = {"interpreter": one, "eps": sizes, "steps": steps}
        attacks.append(
            {"name": "adv2", "label": f"ADV² on {one['label']}", **shared, "warm_steps": 2 if quick else WARM_STEPS}
        )
        alone = {**shared, "eps": sizes[:1]}
        attacks.append({"name": "explanation_only", "label": f"only {one['label']}", **alone})
    places = {"root": setting.root, "name": name}
    if "{trained}" in family.weights:
        places["trained"] = Trained(setting).weights(name)
    return {
        "model": f"{family.weights.format(**places)}?arch={family.arch}",
        "data": {"uri": family.data.format(**places), "n": n, "seed": setting.seed},
        "attacks": attacks,
        "interpreters": interpreters,
        "measures": ["map_iou", "map_l1", "map_kendall"],
        "masking": False,
        "gallery": 0,
        "shard_size": 50,
        "device": setting.device,
        **({"executor": "in-process"} if quick else {}),
    }


def present(family: Family, setting: Setting) -> list[str]:
    """Return the trainings of a family whose networks exist."""
    names = [name for name in family.names if not setting.quick or name in (USUAL, "trades", "int2adv")]
    if "{trained}" in family.weights:
        return [name for name in names if Trained(setting).weights(name).is_file()]
    return names
