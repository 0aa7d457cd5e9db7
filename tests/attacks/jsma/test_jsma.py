"""JSMA against the paper's algorithm, word for word, and where the answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import linear
from underfire.attacks import jsma
from underfire.errors import InputError
from underfire.model import Classifier


def papers_algorithm(model: nn.Module, x: Tensor, target: int, entries: int, theta: float) -> tuple[Tensor, bool]:
    """Algorithms 2 and 3 of the paper for one image, all pairs looked at one by one."""
    x_star = x.clone().flatten()
    domain = {i for i in range(len(x_star)) if (x_star[i] < 1 if theta > 0 else x_star[i] > 0)}

    def predicted(v: Tensor) -> int:
        return int(model(v.view_as(x)).argmax())

    iteration = 0
    while not (reached := predicted(x_star) == target) and iteration < entries // 2 and domain:
        jacobian = torch.autograd.functional.jacobian(lambda v: model(v.view_as(x))[0], x_star)
        own = jacobian[target].tolist()
        others = (jacobian.sum(0) - jacobian[target]).tolist()
        largest, found = 0.0, None
        for p in sorted(domain):
            for q in sorted(domain):
                if p < q:
                    alpha, beta = own[p] + own[q], others[p] + others[q]
                    if theta < 0:
                        alpha, beta = -alpha, -beta
                    if alpha > 0 and beta < 0 and -alpha * beta > largest:
                        largest, found = -alpha * beta, (p, q)
        if found is None:
            break
        for i in found:
            x_star[i] = (x_star[i] + theta).clamp(0, 1)
            if x_star[i] in (0, 1):
                domain.discard(i)
        iteration += 1
    return x_star.view_as(x), reached


@pytest.mark.parametrize("theta", [1.0, -1.0, 0.3])
def test_word_for_word(generator: torch.Generator, theta: float) -> None:
    hidden, last = (torch.randn(n, generator=generator, dtype=torch.float64) for n in ((24, 16), (5, 24)))
    last = last - 0.9 * last.mean(0)  # the logits of a trained network have a constant sum, nearly
    model = nn.Sequential(linear(hidden, -hidden.sum(1) / 2), nn.Tanh(), linear(last))
    x = torch.rand(8, 1, 4, 4, generator=generator, dtype=torch.float64)
    y, goal = model(x).topk(2, dim=1).indices.unbind(1)
    x_adv = jsma(model, x, y, goal=goal, eps=14, theta=theta)
    reached = 0
    for i in range(8):
        expected, success = papers_algorithm(model, x[i : i + 1], int(goal[i]), 14, theta)
        assert torch.allclose(x_adv[i : i + 1], expected if success else x[i : i + 1], atol=1e-12)
        reached += success
    assert reached >= 4


@pytest.mark.parametrize("pair", [True, False])
def test_the_fewest_entries_of_a_linear_model(pair: bool) -> None:
    # Entry i lifts the goal by w_i and lowers the other logit by as much: the fewest are the largest.
    w = torch.tensor([[5.0, 1.0, 4.0, 3.0, -2.0, 2.0]])
    model = linear(torch.cat([-w, w]), torch.tensor([17.0, 0.0]))  # the goal leads from a sum of 8.5 on
    x = torch.zeros(1, 1, 2, 3)
    x_adv = jsma(model, x, torch.tensor([0]), goal=torch.tensor([1]), pair=pair, share=1)
    assert x_adv.flatten().tolist() == [1, 0, 1, 0, 0, 0]
    back = jsma(model, 1 - x, torch.tensor([1]), theta=-1.0, pair=pair, share=1)  # from a sum of 13
    assert back.flatten().tolist() == [0, 1, 0 if pair else 1, 1, 1, 1]


def test_alpha_and_beta_both_count() -> None:
    # By the target's derivative alone entries 0 and 1 would be changed, which lift the other logits too.
    own = torch.tensor([9.0, 9.0, 3.0, 3.0, 1.0, 1.0])
    other = torch.tensor([9.0, 9.0, -3.0, -3.0, -1.0, -1.0])
    model = linear(torch.stack([other, own]), torch.tensor([11.0, 0.0]))
    x = torch.zeros(1, 1, 2, 3)
    x_adv = jsma(model, x, torch.tensor([0]), goal=torch.tensor([1]), eps=2)
    assert x_adv.flatten().tolist() == [0, 0, 1, 1, 0, 0]


def test_a_logit_that_is_always_zero_does_not_stop_it() -> None:
    # beta is 0 for every entry, so that the paper's map is empty.
    model = linear(torch.stack([torch.zeros(4), torch.tensor([1.0, 4.0, 2.0, -1.0])]), torch.tensor([5.0, 0.0]))
    x = torch.zeros(1, 1, 2, 2)
    assert jsma(model, x, torch.tensor([0]), share=1).flatten().tolist() == [0, 1, 1, 0]


def test_samples_leave_when_they_succeed(relu_model: Classifier, images: Tensor) -> None:
    y = relu_model(images).argmax(1)
    with relu_model.counting() as count:
        x_adv = jsma(relu_model, images, y, eps=60)
    changed = (x_adv != images).flatten(1).sum(1)
    assert (relu_model(x_adv).argmax(1) != y).sum() >= 3
    steps = torch.where(changed > 0, (changed + 1) // 2, 30)
    assert count.backwards <= 2 * int((steps + 1).sum())
    assert (changed <= 60).all()


@pytest.mark.slow
def test_more_candidates_never_need_more_entries(relu_model: Classifier, images: Tensor) -> None:
    y = relu_model(images).argmax(1)
    one, all_ = (jsma(relu_model, images, y, eps=60, candidates=n) for n in (1, 3))
    size_one, size_all = ((v != images).flatten(1).sum(1) for v in (one, all_))
    assert ((size_all <= size_one) | (size_one == 0)).all()


@pytest.mark.parametrize("option", [{"share": 0.0}, {"share": 1.5}, {"theta": 0.0}, {"theta": 2.0}, {"candidates": 0}])
def test_numbers_out_of_range(relu_model: Classifier, images: Tensor, option: dict[str, float]) -> None:
    with pytest.raises(InputError):
        jsma(relu_model, images, torch.zeros(6, dtype=torch.int64), **option)


@pytest.mark.slow
def test_ten_percent_of_a_cifar_image_reach_any_class(data_root: Path) -> None:
    model = uf.models.load(f"{data_root / 'weights' / 'resnet20_cifar10.safetensors'}?arch=resnet20_cifar10")
    x = uf.data.load(f"parquet:{data_root / 'cifar10-test.parquet'}")[:2].x
    y = model(x).argmax(1)
    goal = (y + 5) % 10
    x_adv = jsma(model, x, y, goal=goal, eps=307)
    assert (model(x_adv).argmax(1) == goal).all()
    assert ((x_adv == x) | (x_adv == 1)).all()
