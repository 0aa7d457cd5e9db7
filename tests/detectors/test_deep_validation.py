"""Deep Validation against scikit-learn's machines, and its modes."""

import numpy as np
import pytest
import torch
from sklearn.svm import OneClassSVM

from tests.networks import build_network, rand
from underfire.detectors import DeepValidation
from underfire.detectors.deep_validation import fit_machines
from underfire.errors import InputError, ModelError, Unsupported
from underfire.hooks import activations


@pytest.fixture
def model(balanced):
    return balanced


@pytest.fixture
def clean(balanced_images):
    return balanced_images


def by_sklearn(model, clean, x, layer, standardise, nu, gamma):
    """Return the decision functions of the machines of the predicted classes, image by image, by scikit-learn alone."""
    with torch.no_grad():
        known, other = (activations(model, z, [layer])[1][layer].mean((2, 3)).double().numpy() for z in (clean.x, x))
    if standardise:
        mean, std = known.mean(0), known.std(0, ddof=1)
        known, other = (known - mean) / np.where(std > 0, std, 1), (other - mean) / np.where(std > 0, std, 1)
    y, predicted = clean.y.numpy(), model.predict(x).argmax(1).tolist()
    machines = [OneClassSVM(nu=nu, gamma=gamma).fit(known[y == k]) for k in range(3)]
    return torch.tensor([machines[k].decision_function(z[None])[0] for z, k in zip(other, predicted, strict=True)])


@pytest.mark.parametrize(
    ("standardise", "nu", "gamma"), [(True, 0.1, "scale"), (False, 0.3, "scale"), (True, 0.2, "auto"), (True, 0.1, 0.5)]
)
def test_single_validators_are_scikit_learns_decision_functions_and_the_score_their_sum(
    model, clean, standardise, nu, gamma
):
    x = rand(25, 3, 6, 6, seed=1)
    detector = DeepValidation(layers=("1", "3"), standardise=standardise, nu=nu, gamma=gamma).fit(model, clean)
    found = detector.layer_scores(model, x).double()
    for number, layer in enumerate(("1", "3")):
        wanted = -by_sklearn(model, clean, x, layer, standardise, nu, gamma)
        assert torch.allclose(found[:, number], wanted, atol=1e-5)
    assert torch.allclose(detector.score(model, x).double(), found.sum(1), atol=1e-5)
    single = DeepValidation(layers="3", standardise=standardise, nu=nu, gamma=gamma).fit(model, clean)
    assert torch.allclose(single.score(model, x).double(), found[:, 1], atol=1e-6)


def test_machines_of_a_thousand_images_equal_scikit_learn_in_float32():
    z, x = rand(1000, 20, 1, 1).flatten(1) * 6, rand(64, 20, 1, 1, seed=1).flatten(1) * 6
    y = torch.zeros(1000, dtype=torch.int64)
    machines = fit_machines(z, y, 1, 0.1, "scale")
    wanted = OneClassSVM(nu=0.1, gamma="scale").fit(z.double().numpy()).decision_function(x.double().numpy())
    found = machines.decide(x, torch.zeros(64, dtype=torch.int64))
    assert np.abs(found.double().numpy() - wanted).max() < 1e-5


def test_the_gradient_of_the_score_is_that_of_finite_differences(model, clean):
    detector, double = DeepValidation().fit(model, clean), rand(3, 3, 6, 6, seed=2).double()
    x, direction = double.clone().requires_grad_(), rand(3, 3, 6, 6, seed=3).double()
    network = build_network(classes=3).double()
    network.load_state_dict(model.state_dict())
    detector.score(network, x).sum().backward()
    step = 1e-5 * direction
    change = detector.score(network, double + step).sum() - detector.score(network, double - step).sum()
    assert torch.allclose((x.grad * direction).sum(), change / 2e-5, rtol=1e-4)


def test_calibrated_scores_of_every_layer_are_standardised_on_held_out_images(model, clean):
    detector = DeepValidation(layers=("1", "3"), mode="calibrated").fit(model, clean)
    held = torch.cat([(clean.y == k).nonzero().flatten()[4::5] for k in range(3)])
    scores = detector.layer_scores(model, clean.x[held])
    assert torch.allclose(scores.mean(0), torch.zeros(2), atol=1e-4)
    assert torch.allclose(scores.std(0), torch.ones(2), atol=1e-4)


def test_noise_far_from_the_fitted_images_is_suspicious(model, clean):
    detector = DeepValidation().fit(model, clean)
    usual, strange = rand(20, 3, 6, 6, seed=1), (rand(20, 3, 6, 6, seed=1) > 0.5).float()
    assert float(detector.score(model, usual).max()) < float(detector.score(model, strange).min())


@pytest.mark.parametrize(
    "wrong", [{"nu": 0}, {"nu": 1.5}, {"gamma": -1.0}, {"gamma": "scal"}, {"pooling": "mode"}, {"per_class": 1}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        DeepValidation(**wrong)


def test_an_unknown_mode_or_layer_is_refused(model, clean):
    with pytest.raises(Unsupported, match="calibratd"):
        DeepValidation(mode="calibratd")
    with pytest.raises(ModelError, match="relux"):
        DeepValidation(layers="relux*").fit(model, clean)
