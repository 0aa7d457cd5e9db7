"""Labels of an audit: compared by name with the model's classes, answered by the model, or noticed as swapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tests.audit import audit_networks
from underfire.audit.labels import check_swapped, open_data
from underfire.audit.preflight import preflight
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec, load_spec, parse_spec
from underfire.audit.target import open_target
from underfire.errors import DataError, ModelError, SpecError
from underfire.model import Classifier

Small = Callable[..., AuditSpec]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of digits as grey PNG files, three for each class, in folders with the name of the digit."""
    place = tmp_path_factory.mktemp("digits")
    pixels, classes = load_digits(return_X_y=True)
    for k, word in enumerate(WORDS):
        (place / word).mkdir()
        for i, scan in enumerate(pixels[classes == k][:3]):
            Image.fromarray((scan.reshape(8, 8) * 15.9).astype(np.uint8)).save(place / word / f"{i}.png")
    return place


def model(labels: tuple[str, ...] | None = WORDS) -> Classifier:
    return Classifier(audit_networks.convolutional(), labels=labels)


@pytest.mark.slow
def test_folders_are_put_in_the_models_order(folder: Path, small: Small, tmp_path: Path) -> None:
    spec = small(
        model={"uri": "python:audit_networks:linear", "labels": list(WORDS)}, data={"uri": f"folder:{folder}?mode=L"}
    )
    ledger = run(spec, tmp_path / "run")
    rows = ledger.table("rows").to_pylist()
    assert {row["y"] for row in rows if str(row["id"]).startswith("two/")} == {2}
    assert ledger.environment["labels"] == list(WORDS) and len(ledger.environment["notes"]) == 1


def test_without_names_of_the_model_the_spec_has_them(folder: Path, small: Small) -> None:
    data = {"uri": f"folder:{folder}?mode=L"}
    with pytest.raises(ModelError, match="right"):  # "eight" comes first
        preflight(open_target(small(data=data)))
    target = open_target(small(data={**data, "classes": list(WORDS)}))
    preflight(target)
    assert target.labels == WORDS and target.preview.y.bincount().tolist() == [3] * 10


def test_a_mismatch_is_refused_before_anything_is_written(folder: Path, small: Small, tmp_path: Path) -> None:
    spec = small(
        model={"uri": "python:audit_networks:linear", "labels": list("abcdefghij")},
        data={"uri": f"folder:{folder}?mode=L"},
    )
    with pytest.raises(DataError, match="'eight', 'five'.* 'a', 'b'"):
        run(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    mapping = dict(zip(WORDS, "abcdefghij", strict=True))
    preflight(open_target(small(model=spec.model.model_dump(), data={**spec.data.model_dump(), "classes": mapping})))


def test_pictures_are_grey_for_a_model_of_one_channel(folder: Path) -> None:
    grey = torch.nn.Sequential(torch.nn.Conv2d(1, 10, 8), torch.nn.Flatten())
    assert open_data(f"folder:{folder}", Classifier(grey))[:2].x.shape == (2, 1, 8, 8)
    assert open_data(f"folder:{folder}?mode=RGB", Classifier(grey))[:2].x.shape == (2, 3, 8, 8)
    for first, channels in (
        (torch.nn.Conv2d(3, 10, 8), 3),
        (torch.nn.Linear(64, 10), 1),
        (torch.nn.Linear(192, 10), 3),
        (torch.nn.ReLU(), 3),  # it does not tell
    ):
        network = Classifier(torch.nn.Sequential(first, torch.nn.Linear(10, 10)))
        assert open_data(f"folder:{folder}", network)[:1].x.shape == (1, channels, 8, 8)


def test_the_model_answers_for_images_without_labels(folder: Path) -> None:
    images = open_data(f"folder:{folder / 'two'}?mode=L", model())
    assert images[:].y.tolist() == model().predict(images[:].x).argmax(1).tolist()
    assert images.labels == WORDS and "own answers" in images.notes[0]
    other = open_data(f"folder:{folder}?mode=L&labels=model", model(tuple("abcdefghij")))
    assert other[:].y.tolist() == model().predict(other[:].x).argmax(1).tolist()


def test_synsets_are_numbered_for_a_model_of_imagenet_without_names(tmp_path: Path) -> None:
    bare = Classifier(torch.nn.Sequential(torch.nn.Conv2d(3, 1000, 4), torch.nn.Flatten()))
    for names, y in ((("n02123045", "n01443537"), [1, 281]), (("tabby", "goldfish"), [1, 281])):
        place = tmp_path / names[0]
        for name in (names[0], names[-1]):
            (place / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(place / name / "1.png")
        images = open_data(f"folder:{place}", bare)
        assert images[:].y.tolist() == y and images.labels is not None and images.labels[281] == "tabby"


def logits(answers: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(answers), classes).float()


def test_two_swapped_classes_are_noticed() -> None:
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    with pytest.raises(ModelError, match=r"2 \(c\) .*2 of 2"):
        check_swapped(logits([0, 0, 2, 2, 1, 1], 3), y, ("a", "b", "c"))
    for right in ([0, 0, 1, 1, 2, 2], [0, 0, 2, 2, 2, 2], [1, 1, 2, 2, 0, 0]):
        check_swapped(logits(right, 3), y, None)
    check_swapped(logits([1, 0], 2), torch.tensor([0, 1]), None)  # too few to say
    check_swapped(logits([1, 1, 0, 0], 2), torch.tensor([0, 0, 1, 1]), None)
    with pytest.raises(ModelError, match="class 1 .*3 of 3"):
        check_swapped(logits([1] * 3 + [0] * 3, 2), torch.tensor([0] * 3 + [1] * 3), None)


def test_swapped_classes_are_refused_also_where_their_names_agree(folder: Path, small: Small) -> None:
    swapped = [*WORDS[:4], "five", "four", *WORDS[6:]]
    data = {"uri": f"folder:{folder}?mode=L"}
    with pytest.raises(ModelError, match="swapped"):
        preflight(open_target(small(data={**data, "classes": swapped})))
    named = {"uri": "python:audit_networks:linear", "labels": swapped}
    with pytest.raises(ModelError, match="swapped"):
        preflight(open_target(small(model=named, data=data)))


def test_images_that_cannot_be_read_are_listed_before_the_first_cell(
    folder: Path, small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for word in ("one", "two"):
        (tmp_path / word).mkdir()
        for scan in (folder / word).iterdir():
            (tmp_path / word / scan.name).write_bytes(scan.read_bytes())
        (tmp_path / word / "9.png").write_bytes(b"")
    spec = small(data={"uri": f"folder:{tmp_path}?mode=L", "classes": list(WORDS)})
    for previewed in (1024, 2):  # the preview reads all, or two that are whole
        monkeypatch.setattr("underfire.audit.target.PREVIEWED", previewed)
        with pytest.raises(DataError, match="2 of 8.*one/9.png.*two/9.png"):
            preflight(open_target(spec))
    monkeypatch.undo()
    left = open_target(small(data={"uri": f"folder:{tmp_path}?mode=L&unreadable=skip", "classes": list(WORDS)}))
    assert len(left.data) == 6


def test_a_spec_that_never_ends() -> None:
    with pytest.raises(SpecError, match="/dev/zero.* 500,000"):
        load_spec("/dev/zero")


def test_names_of_a_spec_that_are_no_text() -> None:
    plain = {"model": "zoo:x", "data": "digits:", "attacks": ["pgd"]}
    for change in (
        {"model": {"uri": "zoo:x", "labels": ["\ud800", "b"]}},
        {"data": {"uri": "digits:", "classes": {"a": "\udcff"}}},
        {"attacks": [{"name": "pgd", "label": "\udfff"}]},
    ):
        with pytest.raises(SpecError, match=r"\\ud"):
            parse_spec({**plain, **change})
