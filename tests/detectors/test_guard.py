"""A guard: what it refuses, how it is attacked, and how it is saved."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand
from underfire.detectors import Calibration, DeepValidation, Detector, Energy, FeatureSqueezing, Guard, load
from underfire.errors import DataError, InputError, ModelError, NotFitted, Unsupported
from underfire.learning import read_tensors, write_tensors
from underfire.measures.detection import threshold
from underfire.records import Batch


class Brightness(Detector):
    """Scores the mean brightness; without a gradient if it is blind."""

    def __init__(self, *, blind: bool = False):
        self.blind = blind

    def _learn(self, model, clean, attacked):
        return {}

    def _score(self, model, inputs, learned):
        return (inputs.x.detach() if self.blind else inputs.x).mean((1, 2, 3))


@pytest.fixture(scope="module")
def model():
    return build_network(classes=3)


@pytest.fixture(scope="module")
def clean():
    x = rand(40, 3, 6, 6)
    return Batch(x, torch.zeros(40).long(), tuple(map(str, range(40))))


def guard(model, clean, at=0.5, **options):
    return Guard(model, Brightness(**options).fit(model, clean), at, scale=0.1)


def test_it_returns_the_class_or_refuses(model, clean):
    guarded, x = guard(model, clean), clean.x
    flagged = x.mean((1, 2, 3)) > 0.5
    assert 0 < flagged.sum() < 40
    assert torch.equal(guarded.decide(x, chunk=7), torch.where(flagged, -1, model.predict(x).argmax(1)))
    logits = guarded(x)
    assert logits.shape == (40, 4) and torch.allclose(logits[:, :3], model(x))
    assert torch.allclose(logits[:, 3], model(x).amax(1) + (x.mean((1, 2, 3)) - 0.5) / 0.1)
    assert guarded.decide(x[:0]).shape == (0,)


@pytest.mark.parametrize("detector", [Brightness(), Energy(), DeepValidation(layers="*")])
def test_the_detector_reads_the_pass_of_the_classifier(model, clean, detector):
    own = Batch(clean.x, model.predict(clean.x).argmax(1), clean.ids)
    detector.fit(model, own)
    guarded = Guard(model, detector, 0.5)
    with guarded.undefended.counting() as count:
        logits = guarded(clean.x)
    assert count.forwards == 40
    expected = model(clean.x).amax(1) + detector.score(model, clean.x) - 0.5
    assert torch.allclose(logits[:, -1], expected, atol=1e-5)


@pytest.mark.slow
def test_an_attack_with_a_goal_is_accepted_as_the_goal(model, clean):
    guarded, x = guard(model, clean, at=0.45), clean.x[:8]
    y = model.predict(x).argmax(1)
    goal = guarded.likeliest_wrong(x, y)
    assert bool((goal != y).all())
    x_adv = uf.attacks.pgd(guarded, x, y, goal=goal, eps=0.5, steps=12, step_size=0.1)
    assert guarded.decide(x_adv).eq(goal).float().mean() >= 0.75
    assert (x_adv.mean((1, 2, 3)) < x.mean((1, 2, 3))).float().mean() >= 0.75  # it has become darker on the way


def test_a_standard_deviation_of_the_clean_scores_weighs_as_much_as_one_logit(model, clean):
    detector, scores = Brightness().fit(model, clean), (0.1, 0.3, 0.5, 0.7)
    guarded = Guard(model, detector, 0.5, calibration=Calibration(scores, frozenset()))
    assert guarded.module.scale == pytest.approx(torch.tensor(scores).std(correction=0).item())
    assert Guard(model, detector, 0.5).module.scale == 1


def test_a_score_without_a_gradient_stops_a_gradient_attack_and_no_other(model, clean):
    guarded, x = guard(model, clean, blind=True), clean.x[:2]
    y = model.predict(x).argmax(1)
    with pytest.raises(Unsupported, match="has no gradient"):
        uf.attacks.pgd(guarded, x, y, steps=1)
    assert uf.attacks.square(guarded, x, y, queries=5).shape == x.shape


@pytest.mark.slow
def test_it_is_saved_and_loaded_for_its_model_alone(model, clean, tmp_path):
    detector = FeatureSqueezing(squeezers=("bit_depth_1", "median_2")).fit(model, clean)
    at = threshold(detector.score(model, clean.x), 0.2)
    guarded = Guard(model, detector, at, scale=2.0)
    guarded.save(tmp_path / "guard.safetensors")
    again = Guard.load(tmp_path / "guard.safetensors", model)
    assert torch.equal(again(clean.x), guarded(clean.x)) and again.threshold == at
    assert load(tmp_path / "guard.safetensors").learned.keys() == detector.learned.keys()
    with pytest.raises(ModelError, match="fingerprint"):
        Guard.load(tmp_path / "guard.safetensors", _other(model))
    detector.save(tmp_path / "detector.safetensors")
    with pytest.raises(InputError, match="without a threshold"):
        Guard.load(tmp_path / "detector.safetensors", model)
    tensors, facts = read_tensors(tmp_path / "guard.safetensors")
    write_tensors(
        tmp_path / "other", tensors, facts | {"guard": facts["guard"].replace('"version": 1', '"version": 9')}
    )
    with pytest.raises(InputError, match="version 9"):
        Guard.load(tmp_path / "other", model)
    write_tensors(tmp_path / "broken", tensors, facts | {"guard": "{"})
    with pytest.raises(InputError, match="as a guard"):
        Guard.load(tmp_path / "broken", model)


def _other(model):
    """The same network with another weight."""
    other = build_network(classes=3)
    with torch.no_grad():
        other.module[-1].bias.add_(1)
    return other


def test_bad_input(model, clean):
    with pytest.raises(NotFitted):
        Guard(model, Brightness(), 0.5)
    with pytest.raises(ModelError, match="fingerprint"):
        Guard(_other(model), Brightness().fit(model, clean), 0.5)
    with pytest.raises(InputError, match="scale"):
        Guard(model, Brightness().fit(model, clean), 0.5, scale=0)
    with pytest.raises(InputError, match="threshold"):
        Guard(model, Brightness().fit(model, clean), "high")
    with pytest.raises(DataError, match="3 x 5 x 5"):
        guard(model, clean).decide(rand(1, 3, 5, 5))
