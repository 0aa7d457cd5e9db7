"""What is wrong with a model, its data or a method is found before any cell runs, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from underfire import data
from underfire.audit.preflight import preflight
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec
from underfire.audit.target import Target, open_target
from underfire.errors import DataError, ModelError, SpecError, UnderfireError
from underfire.records import Batch

Small = Callable[..., AuditSpec]


@pytest.mark.parametrize(
    ("model", "error", "line"),
    [
        ("not_finite", ModelError, "the model returns NaN or infinite logits for 60 of 60 images"),
        ("one_number", ModelError, r"one number per image, \(60,\); output='binary'"),
        ("three_classes", DataError, r"the label \d of 'digit-\d+' is outside the model's 3 classes \(0 to 2\)"),
        (
            "constant",
            ModelError,
            "the model gets 7 of 60 .* among 10 classes would get 6: wrong normalisation or label order?",
        ),
        ("upside_down", ModelError, "the model gets 0 of 60 images right, .*: wrong normalisation or label order?"),
        ("shifted", ModelError, "the model gets 0 of 60 images right, .* 55 with its classes in another order: "),
    ],
)
def test_a_model_that_is_not_fit(
    small: Small, tmp_path: Path, model: str, error: type[UnderfireError], line: str
) -> None:
    with pytest.raises(error, match=line) as caught:
        run(small(model=f"python:audit_networks:{model}"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"interpreters": ["cam"]}, r"'interpreters\[0\]' \(cam\): "),
        (
            {"interpreters": [{"name": "grad_cam", "layer": "12"}]},
            r"\(grad_cam\): the model has no layer '12'; .*Choices: 0, 1",
        ),
        ({"attacks": [{"name": "adv2", "interpreter": "cam"}]}, r"'attacks\[0\]' \(adv2 cam linf\): "),
        (
            {"attacks": [{"name": "pgd", "keep": "last", "step_size": 0.0}, {"name": "adv2", "interpreter": "cam"}]},
            "adv2 cam",
        ),
        (
            {"model": "python:audit_networks:of_another_domain", "interpreters": ["gradient"]},
            "gradient.*series",
        ),
        ({"attacks": [{"name": "recipe", "keep": "last", "restarts": 3}]}, "keep='last'"),
        ({"device": "cuda:99"}, "'device' 'cuda:99' is not available here"),
        ({"device": "tpu"}, "'device' 'tpu' is not available here"),
    ],
)
def test_a_method_that_does_not_work_on_the_model(
    small: Small, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(SpecError, match=line):
        run(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class _Source:
    """Images made up for one question."""

    labels = None

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: list[int]) -> Batch:
        return Batch(self.x[index], self.y[index], tuple(f"image-{i}" for i in index))


def _on(spec: AuditSpec, x: torch.Tensor) -> Target:
    target = open_target(spec)
    target.data = data.Dataset("made:", _Source(x, torch.arange(len(x)) % 10))
    return target


def test_pixels_outside_the_box(small: Small) -> None:
    x = torch.full((4, 1, 8, 8), 0.5)
    x[2, 0, 3, 3] = 255
    with pytest.raises(DataError, match="'image-2' .* 0.5 to 255"):
        preflight(_on(small(), x))
    x[2, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="'image-2' .* nan to nan"):
        preflight(_on(small(), x))


def test_batches_of_one_size_each_that_differ(small: Small) -> None:
    class TwoSizes(_Source):
        def read(self, index: list[int]) -> Batch:
            found = super().read(index)
            return Batch(found.x if index[0] < 64 else found.x[..., 1:], found.y, found.ids)

    target = open_target(small())
    target.data = data.Dataset("made:", TwoSizes(torch.full((70, 1, 8, 8), 0.5), torch.arange(70) % 10))
    with pytest.raises(DataError, match="'image-0' .8x8. and 'image-64' .7x8."):
        preflight(target)


def test_no_image_at_all(small: Small) -> None:
    with pytest.raises(DataError, match="digits: holds no image"):
        preflight(_on(small(), torch.zeros(0, 1, 8, 8)))


def test_few_images_are_not_held_against_a_model(small: Small) -> None:
    preflight(open_target(small(data={"uri": "digits:", "n": 2})))


def test_a_target_from_another_image_is_tried_on_images_of_one_class(small: Small) -> None:
    aimed = {"name": "adv2", "interpreter": "gradient_input", "target": "other_class", "eps": 0.1, "steps": 2}
    target = open_target(small(attacks=[aimed], data={"uri": "digits:", "n": 40, "seed": 26}))
    assert len(set(target.preview.first.y.tolist())) == 1
    preflight(target)


def test_a_detector_that_cannot_be_saved_is_refused(small: Small) -> None:
    maps = [lambda model, x, y: x, lambda model, x, y: x.square()]
    detector = {"name": "ensemble_interpretation", "interpreters": maps}
    with pytest.raises(SpecError, match=r"detectors\[0\]"):
        preflight(open_target(small(detectors=[detector])))
