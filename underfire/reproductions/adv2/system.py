"""Define the systems that ADV² is measured on: a network, its images, and the interpreters under attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from underfire.reproductions.registry import Setting

EPS = 0.031
FULL_IMAGES = 1000  # as in the paper


@dataclass(frozen=True)
class Aim:
    """An interpreter that ADV² attacks.

    Attributes:
        name: the interpreter's name in the catalogue.
        options: its options.
        effort: the steps of ADV² with both losses and of its warm start in a run of usual size; None is the system's.
        measured: further forms of the interpreter in which the same images are measured, with options, by label.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    effort: tuple[int, int] | None = None
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Framework:
    """The attack on the prediction alone that ADV² is built on and compared with.

    Attributes:
        label: its name in the tables.
        name: its name in the catalogue.
        options: its options, without the number of steps.
        adv2: the options of ADV² that build it on this attack.
        eps: its size.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    adv2: Mapping[str, Any]
    eps: float


PGD = Framework("PGD", "pgd", {"step_size": "1/255", "random_start": False, "keep": "last"}, {}, EPS)


@dataclass(frozen=True)
class System:
    """A network with images and interpreters, which together are audited.

    Attributes:
        network: the architecture of the zoo.
        data: the URI of the images; `{root}` is the folder of real data.
        images: number of images of a run of usual size.
        full: number of images of a run of the published size.
        aims: the interpreters under attack, by their labels.
        steps: steps of ADV² with both losses.
        warm_steps: steps of its warm start; the attack on the prediction alone takes all these steps together.
        shard: images that are attacked at once, so that the memory stays near 2 GB.
        measures: measures of maps beside their distances.
        uri: the URI of the network; empty is the published weights.
        framework: the attack that ADV² is built on.
    """

    network: str
    data: str
    images: int
    aims: Mapping[str, Aim]
    steps: int = 200
    warm_steps: int = 50
    shard: int = 16
    measures: tuple[str, ...] = ()
    uri: str = ""
    framework: Framework = PGD
    full: int = FULL_IMAGES

    def spec(self, setting: Setting) -> dict[str, Any]:
        """Return the audit of the attack alone, of ADV² on each interpreter, and of all interpreters after each."""
        base = self.framework
        common = {"eps": base.eps, "goal": "random-target"}
        attacks: list[dict[str, Any]] = [
            {**common, "name": base.name, "label": base.label, "steps": sum(self.effort(setting)), **base.options}
        ]
        interpreters: list[dict[str, Any]] = []
        for label, aim in self.aims.items():
            entry = {"name": aim.name, "label": label, **aim.options}
            steps, warm = self.effort(setting, aim)
            options = {**base.adv2, "steps": steps, "warm_steps": warm}
            attacks.append({**common, "name": "adv2", "label": f"ADV² on {label}", "interpreter": entry, **options})
            interpreters.append(entry)
            interpreters += [{"name": aim.name, "label": other, **form} for other, form in aim.measured.items()]
        return {
            "model": self.model(setting),
            "data": {"uri": self.images_of(setting), "n": self.n(setting), "seed": setting.seed},
            "attacks": attacks,
            "interpreters": interpreters,
            "measures": ["map_l1", "map_l2", "map_iou", *self.measures],
            "seeds": [setting.seed],
            "masking": False,
            "gallery": 4,
            "shard_size": self.shard,
            "batch_size": 50,
            "keep_gb": 20,
            "device": setting.device,
        }

    def n(self, setting: Setting) -> int:
        """Return the number of images of a run."""
        return {"quick": 3, "default": self.images, "full": self.full}[setting.scale]

    def effort(self, setting: Setting, aim: Aim | None = None) -> tuple[int, int]:
        """Return the steps of ADV² on an interpreter, or in general, with both losses and of its warm start."""
        if setting.quick:
            return 6, 2
        if aim is None or aim.effort is None or setting.scale == "full":
            return self.steps, self.warm_steps
        return aim.effort

    def at(self, setting: Setting) -> System:
        """Return the system of a run; a quick one leaves out MASK, which takes longer than all others together."""
        kept = {label: aim for label, aim in self.aims.items() if not (setting.quick and aim.name == "mask")}
        return replace(self, aims=kept or self.aims)

    def only(self, label: str) -> System:
        """Return the system with one of its interpreters."""
        return replace(self, aims={label: self.aims[label]})

    def images_of(self, setting: Setting) -> str:
        """Return the URI of the images."""
        return self.data.format(root=setting.root) if "{root}" in self.data else self.data

    def model(self, setting: Setting) -> str:
        """Return the URI of the network."""
        if self.uri or self.network == "cluttered_digits":
            return self.uri or "zoo:cluttered_digits"
        return f"{setting.root}/weights/{self.network}.safetensors?arch={self.network}"


# What a run of usual size saves: maps of CAM, Grad-CAM and RTS come near theirs in half of the steps; a step on MASK
# costs five times as many passes as one on GRAD.
CAM, GRAD_CAM, RTS = (Aim(name, effort=(100, 50)) for name in ("cam", "grad_cam", "rts"))
MASK = Aim("mask", effort=(60, 20))
# On photographs, the maps of MASK themselves take half of their default steps.
MASK_OF_PHOTOGRAPHS = replace(MASK, options={"steps": 150})
# As in the authors' code, the gradient map is averaged over squares of 4 pixels (56 x 56 of 224 x 224). The images
# attacked in this form are also measured in the map of every pixel. On photographs, a smooth derivative takes away
# several times as much map loss a step as a difference of gradients (`python -m benchmarks adv2-derivative`).
GRAD = Aim(
    "gradient",
    {"pool": 4, "double_backward": "smooth"},
    effort=(100, 50),
    measured={"GRAD, every pixel": {}},
)
PHOTOGRAPHS = "folder:{root}/imagenet_sample?size=224"
_SMALL = {"GRAD": Aim("gradient"), "CAM": CAM, "MASK": MASK, "RTS": RTS, "Grad-CAM": GRAD_CAM}
# Steps on the digits cost so little that only MASK gets fewer than all of them.
_SMALLEST = {label: replace(aim, effort=(100, 50) if label == "MASK" else None) for label, aim in _SMALL.items()}
LARGE = {"GRAD": GRAD, "CAM": CAM, "Grad-CAM": GRAD_CAM}

DIGITS = System("cluttered_digits", "cluttered-digits:test", 60, _SMALLEST, shard=50)
CIFAR10 = System("resnet56_cifar10", "parquet:{root}/cifar10-test.parquet", 50, _SMALL, shard=50)
MOBILENET = System("mobilenet_v1_075_imagenet", PHOTOGRAPHS, 50, LARGE)  # it gets 41 of them right
EFFICIENTNET = System("efficientnet_lite0_imagenet", PHOTOGRAPHS, 46, LARGE)  # it gets 42 of them right


def masked(system: System) -> System:
    """Return a system of photographs with MASK alone, on which ADV² takes as long as on all other interpreters."""
    return replace(system, aims={"MASK": MASK_OF_PHOTOGRAPHS})


def note_on_mask(system: System, setting: Setting) -> str:
    """Return a sentence on the effort of ADV² on MASK in a run of this size."""
    steps, warm = system.effort(setting, system.aims["MASK"])
    return (
        f"ADV² on MASK has {steps + warm} steps here, {warm} of them the warm start; in the paper it has 1,000 or "
        "more. Whether more steps reach a missed limit was not measured."
    )
