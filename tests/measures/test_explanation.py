"""All measures of faithfulness at once, completeness, time, and what is undefined."""

import pytest
import torch

from underfire.errors import InputError
from underfire.measures import explanation


def gradient_input(model, x, y):
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
    return (g * x).sum(1, keepdim=True)


@pytest.fixture
def case(network, generator):
    model = network("relu", torch.float64)
    x, y = torch.rand(3, 3, 12, 12, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 3])
    return model, x, y, gradient_input(model, x, y)


def test_shared_passes_give_what_each_measure_gives(case):
    model, x, y, m = case
    found = explanation.faithfulness(model, x, y, m, interpreter=gradient_input, steps=16)
    assert list(found) == [
        "deletion",
        "insertion",
        "fidelity",
        "fidelity_over_chance",
        "completeness_gap",
        "infidelity_noise",
        "infidelity_squares",
        "sensitivity_max",
    ]
    alone = {
        "deletion": explanation.deletion(*case, steps=16),
        "insertion": explanation.insertion(*case, steps=16),
        "fidelity": explanation.fidelity(*case),
        "fidelity_over_chance": explanation.fidelity_over_chance(*case),
        "completeness_gap": explanation.completeness_gap(*case),
        "infidelity_noise": explanation.infidelity(*case, perturbation="noise"),
        "infidelity_squares": explanation.infidelity(*case),
        "sensitivity_max": explanation.sensitivity_max(model, x, y, gradient_input),
    }
    for name, value in found.items():
        assert torch.allclose(value, alone[name]), name


def test_what_two_measures_need_is_asked_once(case):
    model, x, y, m = case
    with model.counting() as shared:
        explanation.faithfulness(model, x, y, m, steps=16, shares=(0.125, 0.5), fills=("black",), samples=2)
    curves = 15 + 15 + 3  # inside; the whole image, all black, all blurred
    removed = 2 * 3 - 2  # two shares by the map and two controls; two of them are points of the deletion curve
    assert shared.forwards == 3 * (curves + removed + 2 * 65)


def test_completeness_of_a_linear_model(generator):
    x = torch.rand(4, 2, 5, 5, generator=generator, dtype=torch.float64)
    weight, y = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)

    def model(x):
        score = (x * weight).flatten(1).sum(1) + 3
        return torch.stack([score, 0 * score], 1)

    m = (x * weight).sum(1, keepdim=True)
    assert torch.allclose(explanation.completeness_gap(model, x, y, m), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(explanation.completeness_gap(model, x, y, 1.5 * m), torch.full((4,), 0.5).double())
    grey = torch.full((2, 5, 5), 0.25, dtype=torch.float64)
    shifted = ((x - grey) * weight).sum(1, keepdim=True)
    assert explanation.completeness_gap(model, x, y, shifted, baseline=grey).max() < 1e-12
    assert explanation.completeness_gap(model, x, y, m, baseline=x).isnan().all()  # nothing to explain
    with pytest.raises(InputError, match=r"baseline .*\(5, 4\)"):
        explanation.completeness_gap(model, x, y, m, baseline=x[0, 0, :, :4])


def test_a_constant_map_is_undefined_and_said_so(case):
    model, x, y, m = case
    m = m.clone()
    m[0], m[2, 0, 1, 1] = 0.5, torch.nan
    assert explanation.undefined(m) == {
        0: "the map is 0.5 everywhere: it ranks no pixel, so deletion, fidelity and localisation are undefined",
        2: "the map is not finite, so deletion, fidelity and localisation are undefined",
    }
    found = explanation.faithfulness(model, x, y, m, steps=4)
    for name in ("deletion", "insertion", "fidelity", "fidelity_over_chance"):
        assert found[name].isnan().tolist() == [True, False, True], name
    for name in ("completeness_gap", "infidelity_noise", "infidelity_squares"):  # which need no ranking
        assert found[name].isnan().tolist() == [False, False, True], name


def test_time_is_the_median_of_repeats(case, monkeypatch):
    model, x, y, _ = case
    clock, calls = [0.0], []

    def slow(model, x, y):
        calls.append(len(x))
        clock[0] += [9.0, 3.0, 6.0, 30.0][len(calls) - 1]  # the first is not counted

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    assert explanation.seconds_per_image(model, x, y, slow, repeats=3) == 6 / 3
    assert len(calls) == 4
    with pytest.raises(InputError, match="repeats .* got 0"):
        explanation.seconds_per_image(model, x, y, slow, repeats=0)
