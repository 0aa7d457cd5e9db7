"""The comparison of interpreters: controls, numbers whose answer is known, and what is said where nothing can be."""

import torch

import underfire as uf
from tests.networks import rand
from underfire.errors import Unsupported
from underfire.reproductions import interpreters as comparison


def test_every_interpreter_that_gives_a_map_takes_part():
    names = [one.name for one in comparison.contestants()]
    maps = [card.name for card in uf.cards("interpreter") if card.facts.gives == "map"]
    assert sorted(names) == sorted([*maps, *(one.name for one in comparison.CONTROLS)])


def test_a_perfect_map_finds_all_evidence():
    batch = uf.data.load("cluttered-digits:test", n=6)[:]
    found = comparison.localised(batch.mask.float(), batch.mask)
    assert {name: value.value for name, value in found.items()} == {
        "pointing": 1,
        "mass": 1,
        "iou": 1,
        "box error": 0,
    }


def test_controls_do_not_ask_the_network():
    x = rand(3, 1, 12, 16)
    for one in comparison.CONTROLS:
        m = one.explain(None, x, None)
        assert m.shape == (3, 1, 12, 16)
        assert torch.isfinite(m).all()
    middle = comparison._centre(None, x, None)[0, 0]
    assert middle[5:7, 7:9].min() == middle.max()
    flat = torch.full((1, 1, 8, 8), 0.5)
    flat[..., 4:] = 1
    assert comparison._edges(None, flat, None)[0, 0].amax(0).nonzero().flatten().tolist() == [3, 4]


def test_what_cannot_take_part_is_named_with_its_reason():
    def stubborn(model, x, y):
        raise Unsupported("it wants a transformer")

    one = comparison.Contestant("stubborn", "", stubborn)
    batch = uf.data.load("cluttered-digits:test", n=2)[:]
    model = uf.models.load("zoo:cluttered_digits")
    assert comparison._maps_of(one, model, batch, "digits") == "it wants a transformer"
    notes = comparison._notes({"stubborn": {"family": "", "digits": "it wants a transformer"}}, 2, 2, 0.1)
    assert notes[1] == "Not measured on digits: `stubborn` (it wants a transformer)."
    assert comparison._row("stubborn", {"family": ""})[2:] == ["–"] * 8
