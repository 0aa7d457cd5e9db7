"""Queries are counted per sample, never exceeded, and what was found survives a model that fails."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from underfire import Classifier, Oracle
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.errors import InputError, ModelError, OracleError


def test_every_image_is_a_query_of_its_sample(relu_model: Classifier, images: Tensor) -> None:
    y = relu_model(images).argmax(1)
    query = Queries(relu_model, images, y, torch.tensor([1, 2, 3, 4, 5, 6]), chunk=2)
    index = torch.tensor([1, 1, 4, 5, 5, 5])
    with relu_model.counting() as count:
        logits = query(images[index], index)
    assert torch.allclose(logits, relu_model(images[index]), atol=1e-6)
    assert query.used.tolist() == [0, 2, 0, 0, 1, 3]
    assert query.left.tolist() == [1, 0, 3, 4, 4, 3]
    assert count.forwards == 6
    assert not query.reached(logits, index).any()
    with pytest.raises(InputError, match="sample 1 .* 2 queries"):
        query(images[1:2], torch.tensor([1]))
    assert query.used.tolist() == [0, 2, 0, 0, 1, 3]  # what was refused was not charged


@pytest.mark.parametrize("limit", [0, 1.5, torch.ones(2, dtype=torch.int64)])
def test_a_limit_must_be_a_whole_number_per_sample(relu_model: Classifier, images: Tensor, limit: int) -> None:
    with pytest.raises(InputError, match="queries must be"):
        Queries(relu_model, images, torch.zeros(6, dtype=torch.int64), limit)


def test_a_model_that_fails_takes_along_what_was_found(images: Tensor) -> None:
    class Failing(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 2:
                raise ConnectionError("the service is gone")
            return torch.eye(4)[torch.zeros(len(x), dtype=torch.int64)]

    query = Queries(Failing(), images, torch.zeros(6, dtype=torch.int64), 10)
    everyone = torch.arange(6)
    with (
        pytest.raises(OracleError, match="12 queries: the service") as caught,
        attach_partial_result(lambda: 7),
    ):
        for _ in range(5):
            query(images, everyone)
    assert caught.value.found == 7


def test_nonsense_is_an_error_of_the_model_at_first_and_a_failure_later(images: Tensor) -> None:
    answers = iter([torch.zeros(6), torch.full((6,), 9)])
    everyone = torch.arange(6)
    query = Queries(Oracle(lambda x: next(answers), 3), images, torch.zeros(6, dtype=torch.int64), 10)
    with (
        pytest.raises(OracleError, match="6 queries: the oracle") as caught,
        attach_partial_result(lambda: 7),
    ):
        for _ in range(2):
            query(images, everyone)
    assert caught.value.found == 7
    query = Queries(Oracle(lambda x: torch.full((6,), 9), 3), images, torch.zeros(6, dtype=torch.int64), 10)
    with pytest.raises(ModelError, match="the oracle must name"):
        query(images, everyone)


def test_a_chunk_is_at_least_one_image(relu_model: Classifier, images: Tensor) -> None:
    with pytest.raises(InputError, match="chunk .* got 0"):
        Queries(relu_model, images, torch.zeros(6, dtype=torch.int64), 5, chunk=0)


def test_an_oracle_shows_classes_only(images: Tensor) -> None:
    oracle = Oracle(lambda x: x.mean((1, 2, 3)).numpy() > 0.5, classes=2)
    logits = oracle(images)
    assert torch.equal(logits.argmax(1), (images.mean((1, 2, 3)) > 0.5).long())
    assert logits.sum(1).tolist() == [1.0] * 6
    assert oracle.queries == 6


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: torch.zeros(len(x), 2), r"one class per image \[6\], got shape \(6, 2\)"),
        (lambda x: torch.zeros(len(x) - 1), r"one class per image"),
        (lambda x: torch.full((len(x),), 7), "classes from 0 to 2"),
        (lambda x: torch.full((len(x),), 0.5), "classes from 0 to 2"),
    ],
)
def test_an_oracle_that_answers_nonsense_is_told_so(images: Tensor, answer: object, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Oracle(answer, classes=3)(images)  # type: ignore[arg-type]


def test_an_oracle_needs_two_classes() -> None:
    with pytest.raises(InputError, match="at least 2 classes"):
        Oracle(lambda x: x, classes=1)
