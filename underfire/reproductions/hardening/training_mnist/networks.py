"""Train the networks of the table for MNIST, once; later experiments use their files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator

from underfire import data
from underfire.catalog import find
from underfire.data import Dataset
from underfire.learning import JsonLines, initialised, read_json_lines
from underfire.model import Classifier
from underfire.models.zoo import DIGITS
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.training_mnist.folded import FoldedSmall, class_maps
from underfire.reproductions.hardening.training_mnist.recipes import RECIPES, SCHEDULES, Schedule
from underfire.reproductions.registry import Setting
from underfire.training import Plan

SLICES = 20
"""The number of parts of a training whose mean losses are kept."""


@dataclass(frozen=True)
class Trained:
    """The trained networks of a setting, each of which is trained at its first use.

    A training that was interrupted continues at its last checkpoint.

    Attributes:
        setting: the setting of the experiment.
    """

    setting: Setting

    @cached_property
    def schedule(self) -> Schedule:
        """The schedule of the trainings."""
        return SCHEDULES[self.setting.scale]

    @cached_property
    def images(self) -> Dataset:
        """The training images."""
        return data.load(f"mnist:{self.setting.root / 'mnist'}?split=train", n=self.schedule.images)

    def store(self, name: str) -> Store:
        """Return the folder of a network."""
        facts = {"network": name, "recipe": asdict(RECIPES[name]), "schedule": asdict(self.schedule)}
        return Store.of(self.setting, f"training-mnist-{name}", facts)

    def weights(self, name: str) -> Path:
        """Return the file of the weights of a network, whether it exists or not."""
        return self.store(name).folder / "weights.safetensors"

    def network(self, name: str) -> Classifier:
        """Return a trained network, by the name of its recipe; a `MnistSmall` reads its file, too."""
        weights = self.store(name).tensors("weights", lambda: self._trained(name).module.state_dict())
        module = FoldedSmall()
        module.load_state_dict(weights)
        return Classifier(module, labels=list(DIGITS)).to(self.setting.device).eval()

    def losses(self, name: str) -> list[float]:
        """Return the mean loss of each of `SLICES` parts of a training, in their order."""
        reports = read_json_lines(self.store(name).folder / "losses.jsonl")
        values = torch.tensor([report["losses"][0] for report in reports], dtype=torch.float64)
        return [float(part.mean()) for part in values.tensor_split(min(SLICES, len(values)))]

    def _trained(self, name: str) -> Classifier:
        """Return a network after its training."""
        recipe, schedule, setting = RECIPES[name], self.schedule, self.setting
        model = Classifier(initialised(FoldedSmall, setting.seed), labels=list(DIGITS)).to(setting.device)
        folder = self.store(name).folder
        plan = Plan(
            **schedule.of(recipe.method),  # type: ignore[arg-type] # epochs and rate
            batch_size=schedule.batch_size,
            optimiser="adam",
            weight_decay=0.0,
            schedule=schedule.change,  # type: ignore[arg-type] # a name of a schedule
            checkpoint=folder / "training.checkpoint",
            every=100,
            watch=JsonLines(folder / "losses.jsonl"),
            progress=lambda done, total: setting.progress(done, total, f"training {name}"),
        )
        options = schedule.options(name)
        if recipe.method == "interpretability_aware":
            options["interpreter"] = class_maps  # the class activation maps
        made: Classifier = find("training", recipe.method)(
            model, self.images, **options, plan=plan, generator=Generator().manual_seed(setting.seed)
        )
        (folder / "training.checkpoint").unlink(missing_ok=True)
        return made
