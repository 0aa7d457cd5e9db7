"""What all detectors share: choice of images, one pass for several detectors, files, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.networks import build_network, rand
from underfire.detectors import Detector, FeatureSqueezing, Mahalanobis, fit_all, load, score_all
from underfire.detectors.files import VERSION
from underfire.errors import DataError, InputError, ModelError, NotFitted
from underfire.hooks import Probe
from underfire.learning import read_tensors, write_tensors


class MeanFeatures(Detector):
    """Scores the distance from the mean features of at most three images of each class."""

    labelled, least_per_class = True, 2

    def __init__(self, *, layer: str = "1", most: int | None = 3):
        self.layer, self.most = layer, most

    @property
    def most_per_class(self):
        return self.most

    def _probes(self, model, x):
        return (Probe(self.layer),)

    def _learn(self, model, clean, attacked):
        self.seen, self.attacked = clean, attacked
        return {"mean": clean.features[Probe(self.layer)].mean(0)}

    def _score(self, model, inputs, learned):
        return (inputs.features[Probe(self.layer)] - learned["mean"]).norm(dim=1)


@pytest.fixture
def model(balanced):
    return balanced


@pytest.fixture
def clean(balanced_images):
    return balanced_images.take(torch.arange(40))


def test_images_that_the_model_misclassifies_are_dropped_and_counted(model, clean):
    y = clean.y.clone()
    y[:5] = (y[:5] + 1) % 3
    detector = MeanFeatures(most=None).fit(model, replace(clean, y=y))
    assert detector.dropped == 5 and detector.seen.ids == clean.ids[5:]
    assert torch.equal(detector.seen.x, clean.x[5:]) and torch.equal(detector.seen.y, clean.y[5:])


class Supervised(MeanFeatures):
    """The same, from attacked images too."""

    supervised = True


def test_a_supervised_detector_learns_from_successful_attacks_on_images_that_were_right(model, clean):
    y = clean.y.clone()
    y[:5] = (y[:5] + 1) % 3  # misclassified before the attack
    fooled = (clean.y + 1) % 3
    fooled[5:9] = clean.y[5:9]  # these attacks failed
    detector = Supervised(most=None).fit(model, replace(clean, y=y), replace(clean, y=fooled))
    assert detector.attacked.ids == clean.ids[9:] and detector.about.unsuccessful == 9 and detector.dropped == 5
    with pytest.raises(DataError, match="successful attacks"):
        Supervised(most=None).fit(model, clean, clean)


def test_the_first_images_of_each_class_are_kept_and_a_class_with_too_few_is_named(model, clean):
    detector = MeanFeatures().fit(model, clean)
    wanted = torch.cat([(clean.y == k).nonzero().flatten()[:3] for k in range(3)]).sort().values
    assert detector.dropped == 0 and detector.seen.ids == tuple(clean.ids[i] for i in wanted.tolist())
    few = torch.cat([(clean.y != 1).nonzero().flatten(), (clean.y == 1).nonzero().flatten()[:1]])
    with pytest.raises(DataError, match="got 1 of class '1'"):
        MeanFeatures().fit(model, clean.take(few))


def test_several_detectors_share_one_pass_in_fit_and_in_score(model, clean):
    several = [MeanFeatures(), MeanFeatures(layer="3"), MeanFeatures(layer="logits", most=None)]
    with model.counting() as count:
        fit_all(several, model, clean)
    assert count.forwards == len(clean)
    with model.counting() as count:
        scores = score_all(several, model, clean.x[:6])
    assert count.forwards == 6
    for detector, found in zip(several, scores, strict=True):
        alone = MeanFeatures(**detector.options).fit(model, clean)
        assert torch.allclose(alone.learned["mean"], detector.learned["mean"])
        assert torch.allclose(alone.score(model, clean.x[:6]), found)
    with pytest.raises(InputError, match="no method fit"):
        fit_all([5], model, clean)


def test_another_model_and_another_image_size_are_refused(model, clean):
    detector = MeanFeatures().fit(model, clean)
    with pytest.raises(DataError, match="3 x 8 x 6"):
        detector.score(model, rand(2, 3, 8, 6))
    other = build_network(classes=3)
    with pytest.raises(ModelError, match="fingerprint"):
        detector.score(other, clean.x)
    with pytest.raises(NotFitted):
        score_all([detector, MeanFeatures()], model, clean.x)
    with torch.no_grad():
        weight = other.module[0].weight
        weight[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        MeanFeatures().fit(other, clean)


def test_a_file_that_lacks_a_tensor_is_refused(model, clean, tmp_path):
    path = tmp_path / "detector.safetensors"
    Mahalanobis().fit(model, clean).save(path)
    tensors, facts = read_tensors(path)
    lost = sorted(tensors)[0]
    del tensors[lost]
    write_tensors(path, tensors, facts)
    with pytest.raises(InputError, match=f"lacks 1 of .*{lost}"):
        load(path)


def test_a_file_of_another_version_is_refused(model, clean, tmp_path):
    path = tmp_path / "detector.safetensors"
    FeatureSqueezing(squeezers="median_2").fit(model, clean).save(path)
    assert load(path).about.shape == (3, 6, 6)
    tensors, facts = read_tensors(path)
    write_tensors(path, tensors, facts | {"version": "0"})
    with pytest.raises(InputError, match=f"version '0', and '{VERSION}'"):
        load(path)
