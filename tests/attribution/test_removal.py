"""Drops of several outputs, of one channel of a pixel at a time, against a loop over whole images."""

import pytest
import torch

from tests.networks import build_network, rand
from underfire.attribution.removal import output_drops
from underfire.hooks.means import layer_means


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("images", [1, 3])
def test_one_channel_at_a_time_is_a_loop_over_whole_images(reuse, images):
    model, x = build_network(dtype=torch.float64), rand(images, 3, 5, 4, dtype=torch.float64)
    y, names = model(x).argmax(1), ["1", "3", "6"]
    channel, i, j = (at.flatten() for at in torch.meshgrid(*map(torch.arange, (3, 5, 4)), indexing="ij"))

    def outputs(x):
        layers = [model.module[: int(name) + 1]((x - 0.5) / 0.25) for name in names]
        return torch.cat([z.mean((2, 3)) if z.dim() == 4 else z for z in layers] + [model(x).softmax(1)], 1)

    with torch.no_grad(), layer_means(model, x, names) as means:
        found = output_drops(
            model,
            x,
            y,
            (i, i + 1),
            (j, j + 1),
            read=lambda logits, y: torch.cat([*means.taken(), logits.softmax(1)], 1),
            channels=channel,
            reuse=reuse,
            fill=0.3,
        )
    with torch.no_grad():
        for p in range(len(i)):
            removed = x.clone()
            removed[:, channel[p], i[p], j[p]] = 0.3
            assert torch.allclose(found[:, p], outputs(x) - outputs(removed), atol=1e-12)
