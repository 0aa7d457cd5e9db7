"""What every measure of the catalogue must do, whoever wrote it."""

import inspect

import pytest
import torch
from torch import Tensor, nn

import underfire as uf

CARDS = list(uf.cards("measure"))
BATCH = 5
#: What an audit has at hand, by name.
VOCABULARY = {"model", "interpreter", "x", "x_adv", "y", "goal", "logits", "logits_adv", "m", "n", "mask"}
# Where a model is asked, images in narrow floats are other images by a little: small changes are rounded.
ASKED = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}


class Wide(nn.Module):
    """A small smooth network that computes in float64 whatever it is given."""

    def __init__(self, seed):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, 4)).double()
        draw = torch.Generator().manual_seed(seed)
        for parameter in self.body.parameters():
            nn.init.normal_(parameter, 0.0, 0.3, generator=draw)

    def forward(self, x):
        return self.body(x.double())


def gradient_input(model, x, y):
    with torch.enable_grad():
        point = x.double().detach().requires_grad_(True)
        (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
    return (g * x).sum(1, keepdim=True).to(x.dtype)


def arguments(card, dtype=torch.float64):
    """One batch of whatever the measure asks for, by the names in its signature."""
    draw = torch.Generator().manual_seed(0)

    def rand(*shape):  # multiples of 1/8: exact in every float type, so that the answers must agree
        return torch.randint(0, 9, shape, generator=draw).to(dtype) / 8

    mask = torch.zeros(BATCH, 1, 8, 8, dtype=torch.bool)
    mask[..., 1:5, 2:7] = True
    known = {
        "x": rand(BATCH, 3, 4, 4),
        "x_adv": rand(BATCH, 3, 4, 4),
        "logits": rand(BATCH, 4) * 8,
        "logits_adv": rand(BATCH, 4) * 8,
        "y": torch.tensor([0, 1, 2, 3, 0]),
        "m": rand(BATCH, 1, 4, 4),
        "n": rand(BATCH, 1, 8, 8),
        "mask": mask,
        "sizes": rand(BATCH) + 1,
        "best": rand(BATCH),
        "boxes": torch.tensor([[0, 0, 2, 2], [1, 1, 4, 4], [0, 2, 3, 4], [2, 0, 4, 3], [0, 0, 4, 4]]),
        "model": Wide(0),
        "other": Wide(1),
        "interpreter": gradient_input,
        "answers": torch.tensor([0, 1, 2, 3, 1]),
        "predictions": torch.tensor([0, 1, 2, 0, 1]),
        "labels": torch.tensor([0, 1, 2, 3, 0]),
        "seconds": rand(BATCH) + 1,
    }
    asked = inspect.signature(card.function).parameters.values()
    return [known[p.name] for p in asked if p.default is p.empty]


@pytest.fixture(params=CARDS, ids=lambda c: c.name)
def card(request):
    return request.param


def test_the_catalogue_has_measures():
    assert {"linf", "success", "confidence", "map_l1", "map_l2", "map_iou", "pointing_game"} <= {c.name for c in CARDS}


def test_the_measure_is_reachable_by_the_name_on_its_card(card):
    assert getattr(uf.measures, card.name) is card.function
    assert card.function.__name__ == card.name
    assert card.name in uf.measures.__all__


def test_an_audit_can_bind_the_arguments_of_what_it_computes(card):
    asked = [p.name for p in inspect.signature(card.function).parameters.values() if p.default is p.empty]
    if card.facts.table:
        assert set(asked) <= VOCABULARY
    assert card.facts.table in {"", "rows", "maps"}


def test_the_card_has_a_summary(card):
    assert card.summary.endswith(".")


def test_one_value_for_each_sample_or_one_number(card):
    found = card(*arguments(card))
    if isinstance(found, Tensor):
        assert found.shape == (BATCH,)
        assert found.dtype in (torch.bool, torch.float64)
    else:
        assert isinstance(found, float)


def test_a_batch_is_its_singles(card):
    if card.facts.whole:
        pytest.skip("a number for a whole set by its card")
    given = arguments(card)

    def one(i):
        return (a[i : i + 1] if isinstance(a, Tensor) else a for a in given)

    batch, singles = card(*given), [card(*one(i)) for i in range(BATCH)]
    if isinstance(batch, Tensor):
        torch.testing.assert_close(torch.cat(singles), batch)
    else:
        assert sum(singles) / BATCH == pytest.approx(batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_float_type_changes_nothing(card, dtype):
    if card.facts.timed:
        pytest.skip("a time by its card")
    given = arguments(card)
    wide, narrow = card(*given), card(*arguments(card, dtype))
    if isinstance(wide, Tensor) and wide.dtype != torch.bool:
        assert narrow.dtype == torch.float32
        near = {"rtol": ASKED[dtype], "atol": ASKED[dtype] / 10} if isinstance(given[0], nn.Module) else {}
        torch.testing.assert_close(narrow, wide.float(), **near)
    else:
        assert wide.tolist() == narrow.tolist() if isinstance(wide, Tensor) else wide == pytest.approx(narrow)


def test_values_stay_inside_the_limits_of_the_card(card):
    if card.facts.limits is not None:
        low, high = card.facts.limits
        found = torch.as_tensor(card(*arguments(card))).double()
        assert ((found >= low) & (found <= high)).all()


def test_arguments_are_left_as_found(card):
    given = arguments(card)
    state = torch.random.get_rng_state()

    def tensors():
        modules = [a for a in given if isinstance(a, nn.Module)]
        return [*(a for a in given if isinstance(a, Tensor)), *(p for a in modules for p in a.state_dict().values())]

    def modes():
        return [module.training for a in given if isinstance(a, nn.Module) for module in a.modules()]

    before, flags = [t.clone() for t in tensors()], modes()
    card(*given)
    assert all(map(torch.equal, tensors(), before))
    assert modes() == flags
    assert torch.equal(torch.random.get_rng_state(), state)
