"""Arguments of a wrong type: lists and arrays are tensors where a tensor is natural, and all else is one clear line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import underfire as uf
from tests.contracts.test_measures import OTHERS
from underfire import detectors
from underfire.catalog import Card, cards
from underfire.checked_calls.measures import call_measure
from underfire.errors import UnderfireError
from underfire.figures import printing, sheets
from underfire.measures import detection, statistics
from underfire.testing.measure import Subject

WRONG: dict[str, Any] = {
    "text": "abc",
    "none": None,
    "object": object(),
    "number": 5,
    "ragged": [[1, 2], [3]],
    "texts": ["a", "b"],
    "one number": torch.tensor(1.0),
    "bytes": b"x",
}
#: A measure of time, which has no value to compare.
TIMES = "seconds_per_image"


def one_line(call: Callable[[], Any]) -> str:
    """Return the message of the error that `call` raises; a raw error or several lines fail."""
    with pytest.raises(UnderfireError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("card", list(cards("measure")), ids=lambda card: card.name)
def test_a_measure_takes_lists_and_arrays(card: Card[Any]) -> None:
    subject = Subject(card.function, card.facts, OTHERS)
    given = subject.given(torch.float32)
    wanted = torch.as_tensor(subject(given)).double()
    for convert in (torch.Tensor.tolist, torch.Tensor.numpy, list):
        found = torch.as_tensor(subject([convert(v) if isinstance(v, torch.Tensor) else v for v in given])).double()
        assert found.shape == wanted.shape
        assert card.name == TIMES or torch.allclose(found, wanted, equal_nan=True, atol=1e-6)


@pytest.mark.parametrize("card", list(cards("measure")), ids=lambda card: card.name)
def test_a_measure_names_an_argument_of_a_wrong_type(card: Card[Any]) -> None:
    subject = Subject(card.function, card.facts, OTHERS)
    given, names = subject.given(torch.float32), subject.required()
    for i, name in enumerate(names):
        for wrong in WRONG.values():
            text = one_line(lambda i=i, wrong=wrong: subject([*given[:i], wrong, *given[i + 1 :]]))  # type: ignore[misc]
            assert name in text
    if "quantile" in card.options:
        assert "quantile" in one_line(lambda: card.function(*given, quantile="high"))


def test_tensors_that_do_not_fit_together_are_named_with_their_shapes() -> None:
    def product(m: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return m * n

    bound = inspect.signature(product).bind(torch.ones(3, 4), [[0, 1]])
    text = one_line(lambda: call_measure(product, None, bound))
    assert "m [3, 4]" in text and "n [1, 2]" in text


GOOD = [0.1, 0.5, 0.9, 0.3]
AT = detection.threshold(np.linspace(0, 1, 50), 0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda v: detection.threshold(v, 0.3),
        lambda v: detection.threshold(np.linspace(0, 1, 50), v),
        lambda v: detection.detection_rate(v, AT),
        lambda v: detection.detection_rate(GOOD, v),
        lambda v: detection.auroc(GOOD, v),
        statistics.rate,
        statistics.bootstrap_mean,
        statistics.student_mean,
        lambda v: statistics.bootstrap_ratio(GOOD, v),
        lambda v: statistics.ratio_difference(v, (GOOD, GOOD)),
        lambda v: statistics.paired_difference(v, GOOD),
        lambda v: statistics.rate([1, 0], confidence=v),
    ],
)
@pytest.mark.parametrize("wrong", [name for name in WRONG if name != "one number"])
def test_statistics_name_what_is_wrong(call: Callable[[Any], Any], wrong: str) -> None:
    one_line(lambda: call(WRONG[wrong]))


def test_counts_of_a_rate_are_numbers() -> None:
    for wrong in (value for name, value in WRONG.items() if name != "number"):
        one_line(lambda wrong=wrong: statistics.clopper_pearson(wrong, 5))  # type: ignore[misc]
        one_line(lambda wrong=wrong: statistics.clopper_pearson(2, wrong))  # type: ignore[misc]


PATHS = [5, None, object(), [1], b"x", 1.5, "", "/", "a\0b", torch.ones(2)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_a_path_that_is_none_is_one_line(path: Any) -> None:
    detector = detectors.FeatureSqueezing(squeezers="mnist")
    detector.learned, detector.classes = {"scale": torch.ones(1)}, 3
    patch = torch.zeros(3, 4, 4)
    for call in (
        detector.save,
        detectors.FeatureSqueezing.load,
        detectors.load,
        lambda path: printing.save_patch(patch, patch[0] == 0, path),
        lambda path: sheets.save(patch, path),
    ):
        one_line(lambda call=call: call(path))  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [5, None, object(), [1], b"x", 1.5], ids=lambda wrong: type(wrong).__name__)
def test_a_name_that_is_no_text_is_one_line(wrong: Any) -> None:
    for call in (uf.models.load, uf.data.load, lambda name: uf.catalog.find("attack", name)):
        one_line(lambda call=call: call(wrong))  # type: ignore[misc]
    assert "nowhere.pt2" in one_line(lambda: uf.models.load(Path("nowhere.pt2")))
