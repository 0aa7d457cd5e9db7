"""A combination of detectors: the scores of its members, on one scale, from one file."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand, randn
from underfire.detectors import Combination, load
from underfire.errors import DataError, InputError, Unsupported

PAIR = ({"name": "feature_squeezing", "squeezers": "median_2"}, {"name": "mahalanobis", "combine": "last"})


@pytest.fixture(scope="module")
def case():
    model, x = build_network(classes=2), rand(60, 3, 8, 8)
    with torch.no_grad():
        model.module[-1].bias.sub_(model(x).median(0).values)
        moved = (x + 0.4 * randn(*x.shape, seed=1)).clamp(0, 1)
        clean = uf.Batch(x, model(x).argmax(1), tuple(map(str, range(60))))
        attacked = uf.Batch(moved, 1 - model(moved).argmax(1), clean.ids)
    return model, clean, attacked


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["z_score", "p_value", "logistic"])
def test_a_combination_is_made_of_the_scores_of_its_members(case, rule, tmp_path):
    model, clean, attacked = case
    made = Combination(detectors=PAIR, rule=rule).fit(model, clean, attacked)
    made.save(tmp_path / "both")
    score = load(tmp_path / "both").score(model, attacked.x)
    scores = torch.stack([member.score(model, attacked.x) for member in made.members], 1)
    # the inputs whose scores were measured: every third of each class
    third = torch.cat([(clean.y == k).nonzero().flatten()[2::3] for k in (0, 1)])
    known = torch.stack([member.score(model, clean.x[third]) for member in made.members], 1)
    if rule == "z_score":
        wanted = ((scores - known.mean(0)) / known.std(0, correction=0)).amax(1)
    elif rule == "p_value":
        above = (known[None] >= scores[:, None]).sum(1)
        wanted = (-((above + 1) / (len(known) + 1)).log()).amax(1)
    else:
        mean, scale, weight, bias = (made.learned[f"regression.{n}"] for n in ("mean", "scale", "weight", "bias"))
        wanted = (((scores - mean) / scale) @ weight + bias).float()
    assert torch.allclose(score, wanted, atol=1e-4)


def test_a_p_value_has_the_gradient_of_the_z_score(case):
    model, clean, _ = case
    of = {"detectors": ("energy", "softmax")}
    gradients = []
    for rule in ("z_score", "p_value"):
        x = clean.x[:8].clone().requires_grad_()
        score = Combination(**of, rule=rule).fit(model, clean).score(model, x)
        gradients.append(torch.autograd.grad(score.sum(), x)[0])
    assert gradients[0].abs().sum() > 0 and torch.allclose(*gradients, rtol=1e-4)
    with torch.no_grad():
        assert torch.allclose(score, Combination(**of, rule=rule).fit(model, clean).score(model, clean.x[:8]))


def test_what_cannot_be_combined_is_refused(case):
    for wrong in ("lid", ("lid",), ("lid", "lid"), ("lid", 5), ("lid", "no_such_detector")):
        with pytest.raises(InputError):
            Combination(detectors=wrong)
    with pytest.raises(Unsupported, match="median"):
        Combination(rule="median")
    model, clean, _ = case
    with pytest.raises(DataError, match="attacked"):
        Combination(rule="logistic").fit(model, clean)
