"""ADV² that knows the detector: feature squeezing, an ensemble of interpreters, and any detector by its hinge."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand
from underfire.ascent.evasion import evade
from underfire.attacks.adv2.squeezing import CODE, _in_squeezed_space
from underfire.detectors import EnsembleInterpretation, FeatureSqueezing
from underfire.errors import InputError, Unsupported
from underfire.hooks import frozen
from underfire.measures.detection import detection_rate, threshold
from underfire.measures.maps import map_l1
from underfire.transforms.squeezing import bit_depth

SQUEEZERS = ("bit_depth_3", "median_2", "median_3")
SHORT = {"eps": 0.1, "steps": 30, "warm_steps": 10, "confidence": 0.3}
CAM = uf.interpreters.cam


class Setting:
    """A network, images with a second class as the goal, a fitted detector, and a threshold at 10 %."""

    def __init__(self):
        self.model = build_network()
        known = uf.Batch(rand(60, 3, 12, 12, seed=1), torch.zeros(60, dtype=torch.int64), tuple(map(str, range(60))))
        self.x = rand(12, 3, 12, 12, seed=2)
        with torch.no_grad():
            self.y, self.goal = self.model(self.x).topk(2, dim=1).indices.unbind(1)
        self.detector = FeatureSqueezing(squeezers=SQUEEZERS).fit(self.model, known)
        self.ensemble = EnsembleInterpretation(interpreters=("cam", "gradient")).fit(self.model, known)
        other = rand(60, 3, 12, 12, seed=3)
        self.at = threshold(self.detector.score(self.model, other), 0.1)
        self.plain = self.adv2()

    def adv2(self, **more):
        return uf.attacks.adv2(self.model, self.x, self.y, goal=self.goal, interpreter=CAM, **SHORT, **more)

    def fooled(self, x_adv):
        with torch.no_grad():
            return self.model(x_adv).argmax(1) == self.goal

    def scores(self, x_adv):
        with torch.no_grad():
            return self.detector.score(self.model, x_adv)[self.fooled(x_adv)]


@pytest.fixture(scope="module")
def s():
    return Setting()


def squeezing(s, **more):
    options = {"goal": s.goal, "interpreter": CAM, "squeezers": SQUEEZERS, **SHORT, **more}
    return uf.attacks.adv2_squeezing(s.model, s.x, s.y, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "evasion", "left"), [("paper", 5.0, 0.9), ("code", 1.0, 0.8), ("bpda", 5.0, 0.8)])
def test_feature_squeezing_sees_less_of_it(s, scheme, evasion, left):
    limits = (s.at.value,) * 3 if scheme == "code" else None
    x_adv = squeezing(s, scheme=scheme, evasion=evasion, thresholds=limits)
    assert s.fooled(x_adv).float().mean() >= 0.9
    assert s.scores(x_adv).mean() < left * s.scores(s.plain).mean()
    rates = [detection_rate(s.scores(images), s.at).value for images in (x_adv, s.plain)]
    assert rates[0] < rates[1]


@pytest.mark.slow
def test_any_detector_is_evaded_by_its_hinge(s):
    x_adv = s.adv2(also=10 * evade(s.detector, s.at.value))
    assert s.fooled(x_adv).float().mean() >= 0.9
    assert detection_rate(s.scores(x_adv), s.at).value < detection_rate(s.scores(s.plain), s.at).value


@pytest.mark.slow
def test_an_ensemble_is_attacked_on_all_its_interpreters(s):
    options = {"goal": s.goal, **SHORT}
    x_adv = uf.attacks.adv2_ensemble(s.model, s.x, s.y, interpreters=("cam", "gradient"), **options)
    assert s.fooled(x_adv).float().mean() >= 0.9
    gradient = uf.interpreters.gradient
    benign = gradient(s.model, s.x, s.y)
    gaps = [map_l1(benign, gradient(s.model, images, s.goal)).mean() for images in (x_adv, s.plain)]
    assert gaps[0] < 0.9 * gaps[1]
    alone = uf.attacks.adv2_ensemble(s.model, s.x, s.y, interpreters=("cam",), **options)
    assert torch.equal(alone, s.plain)


def test_stage_one_stays_among_the_squeezed_images_of_the_ball(s):
    eps = torch.linspace(0.02, 0.3, 12)
    with frozen(s.model):
        x_plus = _in_squeezed_space(s.model, s.x, s.y, s.goal, 3, eps, 10)
    assert torch.allclose(bit_depth(x_plus, 3), x_plus, atol=1e-6)
    ball = [bit_depth((s.x + side * eps[:, None, None, None]).clamp(0, 1), 3) for side in (-1, 1)]
    fooled = s.fooled(x_plus)
    assert fooled.any()
    assert bool((x_plus >= ball[0] - 1e-6)[fooled].all()) and bool((x_plus <= ball[1] + 1e-6)[fooled].all())


def test_the_constants_of_the_code():
    """40, and 12 times 3/4 and 1/4; the thresholds are 95th percentiles of a ResNet-50."""
    assert CODE == {"bit_depth_3": (40, 1.5924778), "median_2": (9, 0.96955955), "median_3": (3, 1.3244714)}


def test_bad_options(s):
    with pytest.raises(InputError, match="3 squeezers"):
        squeezing(s, thresholds=(0.1,))
    with pytest.raises(Unsupported, match="bit_depth_5"):
        squeezing(s, scheme="code", squeezers=("bit_depth_5",))
    with pytest.raises(Unsupported, match="scheme"):
        squeezing(s, scheme="bdpa")
    with pytest.raises(InputError, match="number"):
        squeezing(s, thresholds=["a", 0.1, 0.2])
    for wrong, error, words in (
        ((), InputError, "at least one"),
        ("gradient", InputError, "list"),
        (("gradient", 3), InputError, "3"),
        (("gradient", "mask"), Unsupported, "mask"),
        (({"name": "gradient", "poll": 4},), InputError, "pool"),
        (({"pool": 4},), InputError, "name"),
    ):
        with pytest.raises(error, match=words):
            uf.attacks.adv2_ensemble(s.model, s.x, s.y, interpreters=wrong)
