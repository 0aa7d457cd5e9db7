"""ADV² can aim at maps that are modified gradients or weigh features: they come closer to the target than under PGD."""

from functools import partial

import pytest

import underfire as uf
from underfire.measures import maps

SHOWN = {
    "lrp": partial(uf.interpreters.lrp),
    "lrp, epsilon": partial(uf.interpreters.lrp, composite="epsilon"),
    "lrp, gamma, exact": partial(uf.interpreters.lrp, composite="epsilon_gamma_box", double_backward="exact"),
    "deep_lift": partial(uf.interpreters.deep_lift),
    "full_grad": partial(uf.interpreters.full_grad),
    "layer_cam": partial(uf.interpreters.layer_cam),
    "hires_cam": partial(uf.interpreters.hires_cam),
}


@pytest.fixture(scope="module")
def case():
    model, batch = uf.models.load("zoo:cluttered_digits"), uf.data.load("cluttered-digits:test", n=3, seed=0)[:]
    return model, batch.x, batch.y


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_adv2_lowers_the_loss_of_the_map(case, name):
    show, (model, x, y) = SHOWN[name], case
    target, goal = maps.normalise(show(model, x, y)), (y + 1) % 10
    distances = []
    for weight in (0.0, 30.0):
        found = uf.attacks.adv2(
            model, x, y, goal=goal, interpreter=show, eps=0.1, steps=10, warm_steps=4, weight=weight
        )
        assert bool((model.predict(found).argmax(1) == goal).all())
        distances.append((maps.normalise(show(model, found, goal)) - target).square().mean())
    assert distances[1] < 0.8 * distances[0]
