"""All interpreters side by side: who takes part, in which order, and who is left out with which reason."""

import torch

from underfire.attribution.comparison import map_cards, run_all_interpreters
from underfire.errors import Unsupported


def test_families_stand_together(relu_model):
    names = [card.name for card in map_cards()]
    assert {"gradient", "cam", "occlusion"} <= set(names)
    assert not {"prototypes", "counterfactual", "surrogate"} & set(names)
    families = [card.facts.family for card in map_cards()]
    assert families == sorted(families, key=families.index)


def test_what_asks_for_every_pixel_is_left_out_of_large_images(relu_model):
    wanted = ("leave_one_out", "gradient")
    y = torch.zeros(1, dtype=torch.int64)
    small, large = (
        {card.name: said for card, said in run_all_interpreters(relu_model, torch.zeros(1, 3, n, n), y, only=wanted)}
        for n in (12, 128)
    )
    assert small["leave_one_out"].shape == (1, 1, 12, 12)
    assert isinstance(large["leave_one_out"], Unsupported)
    assert "16384 pixels" in str(large["leave_one_out"])
    assert isinstance(large["gradient"], torch.Tensor)
