"""The loop against closed forms, slow word-for-word loops, and its own promises."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, randn
from underfire.ascent import moves, objectives, step_rules
from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.step import Targets
from underfire.ascent.threats import BALLS, L2, Linf, ball
from underfire.errors import InputError, Unsupported
from underfire.gradients import estimators, smoothing, views
from underfire.model import Classifier


class Planes(nn.Module):
    """A linear classifier whose nearest adversarial point is known."""

    def __init__(self, classes=3, features=12):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.weight = nn.Parameter(torch.randn(classes, features, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return (x.flatten(1) - 0.5) @ self.weight.T


def ascend_with(model, x, y, objective, threat, *, step_size, **options):
    """`ascend` with the fields of the recipe among the options."""
    fields = {name: options.pop(name) for name in ("move", "views", "keep", "rank") if name in options}
    return ascend(model, x, y, Recipe(objective, threat, step_rule=step_size, **fields), **options)


@pytest.fixture
def planes():
    return Classifier(Planes())


@pytest.fixture
def x():
    return 0.5 + 0.05 * randn(6, 3, 2, 2, dtype=torch.float64)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0), ("l1", float("inf"))])
def test_reaches_the_exact_optimum_of_a_linear_model(x, norm, dual):
    """With two classes the best margin in the ball is margin + eps * |w_0 - w_1|_dual; the box is far away."""
    model, eps = Classifier(Planes(classes=2)), 0.1
    y, w = model(x).argmax(1), model.module.weight.detach()
    targets = Targets(y, None, torch.arange(6))
    best = objectives.margin()(targets.step(model, x, model(x))) + eps * torch.linalg.vector_norm(w[0] - w[1], dual)
    threat = BALLS[norm](eps) if norm != "l1" else BALLS[norm](eps, sparsity=0.0)
    x_adv = ascend(model, x, y, Recipe(objectives.margin(), threat, step_rule=step_rules.linear(0.05, 0.001)), steps=60)
    reached = objectives.margin()(targets.step(model, x_adv, model(x_adv)))
    assert torch.allclose(reached, best, rtol=1e-3, atol=1e-4)
    assert (reached <= best + 1e-9).all()


def test_retirement_finds_the_same_images_with_fewer_passes(network):
    model = network("relu", torch.float64)
    x = rand(16, 3, 8, 8, dtype=torch.float64)
    y = model(x).argmax(1)
    run = {"steps": 20, "step_size": 0.01}
    with model.counting() as full:
        best = ascend_with(model, x, y, objectives.margin(), Linf(0.1), keep="best", **run)
    with model.counting() as retired:
        first = ascend_with(model, x, y, objectives.margin(), Linf(0.1), keep="success", **run)
    fooled = model(best).argmax(1) != y
    assert torch.equal(model(first).argmax(1) != y, fooled)
    assert fooled.any()
    assert full.backwards == 16 * 20
    assert full.forwards == 16 * 21
    assert retired.backwards < full.backwards
    # A sample leaves at its own first success: alone it gives the same image.
    for i in range(4):
        alone = ascend_with(model, x[i : i + 1], y[i : i + 1], objectives.margin(), Linf(0.1), keep="success", **run)
        assert torch.allclose(alone, first[i : i + 1], atol=1e-12)


@pytest.mark.slow
def test_retirement_with_everything_per_sample(network):
    """eps, size, goal, mask, map target and the move's memory must all follow the samples that stay."""
    model = network("smooth", torch.float64)
    x = rand(8, 3, 8, 8, dtype=torch.float64)
    y = model(x).argmax(1)
    goal = (y + 1) % 4
    eps, size = torch.linspace(0.02, 0.4, 8, dtype=torch.float64), torch.linspace(0.005, 0.05, 8, dtype=torch.float64)
    mask = (rand(8, 1, 8, 8, seed=1) > 0.3).double()
    target = rand(8, 1, 8, 8, seed=2, dtype=torch.float64)

    def run(rows):
        from underfire.interpreters import cam

        objective = objectives.margin() + 0.5 * objectives.keep_map(cam, target[rows])
        threat = Linf(eps[rows], mask[rows])
        options = {
            "goal": goal[rows],
            "steps": 12,
            "step_size": size[rows],
            "move": moves.momentum(0.9),
            "keep": "success",
        }
        return ascend_with(model, x[rows], y[rows], objective, threat, **options)

    together = run(torch.arange(8))
    fooled = model(together).argmax(1) == goal
    assert fooled.any()
    assert not fooled.all()
    for i in range(8):
        assert torch.allclose(run(torch.tensor([i])), together[i : i + 1], atol=1e-10)


def test_best_never_returns_less_than_any_iterate(network):
    model = network("relu", torch.float64)
    x = rand(8, 3, 8, 8, seed=3, dtype=torch.float64)
    y = model(x).argmax(1)
    seen = []

    def spied(step):
        value = objectives.margin()(step)
        seen.append(value.detach())
        return value

    x_adv = ascend(model, x, y, Recipe(objectives.objective(spied), Linf(0.05), step_rule=0.04), steps=15)
    targets = Targets(y, None, torch.arange(8))
    assert torch.allclose(
        objectives.margin()(targets.step(model, x_adv, model(x_adv))), torch.stack(seen).amax(0), atol=1e-12
    )


def test_restarts_only_help(network):
    model = network()
    x = rand(32, 3, 8, 8)
    y = model(x).argmax(1)
    rates = []
    for restarts in (1, 4):
        x_adv = ascend(
            model,
            x,
            y,
            Recipe(objectives.margin(), L2(0.25), step_rule=0.1),
            steps=3,
            restarts=restarts,
            random_start=True,
            generator=torch.Generator().manual_seed(0),
        )
        targets = Targets(y, None, torch.arange(32))
        rates.append(objectives.margin()(targets.step(model, x_adv, model(x_adv))))
    assert (rates[1] >= rates[0] - 1e-6).all()
    assert (rates[1] > rates[0] + 1e-6).any()


def test_a_warm_start_begins_where_it_is_told(planes, x):
    z = (x + 0.03).clamp(0, 1)
    x_adv = ascend(
        planes, x, planes(x).argmax(1), Recipe(objectives.margin(), Linf(0.1), step_rule=0.0, keep="last"), steps=1, z=z
    )
    assert torch.allclose(x_adv, z)


# --- SI-NI-TI-DIM: one recipe against the papers, word for word ------------------------------------------------------


def si_ni_ti_dim(model, x, y, eps, steps, generator):
    """The recipe: five published ideas, no loop."""
    size = eps / steps
    return ascend(
        model,
        x,
        y,
        Recipe(
            objectives.cross_entropy(),
            Linf(eps),
            step_rule=size,
            views=views.compose(views.scale_copies(5), views.input_diversity(0.5, rate=1.25)),
            smooth=smoothing.translation_kernel(7),
            move=moves.look_ahead(1.0),
            keep="last",
        ),
        steps=steps,
        generator=generator,
    )


def slow_si_ni_ti_dim(model, x, y, eps, steps, generator):
    """Lin et al. 2020, algorithm 1, with Xie et al.'s D(x; p) at every copy, Dong et al.'s kernel on the gradient."""
    offset = torch.arange(-3, 4, dtype=torch.float64)
    line = torch.exp(-((offset / 3 * 3) ** 2) / 2)  # three standard deviations
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum()).expand(3, 1, 7, 7)
    alpha, mu, g, x_t = eps / steps, 1.0, torch.zeros_like(x), x.clone()
    for _ in range(steps):
        x_nes = (x_t + alpha * mu * g).detach().requires_grad_()
        loss = 0
        for i in range(5):
            copy = x_nes / 2**i
            if float(torch.rand((), generator=generator)) < 0.5:
                low, high = x.shape[2], round(1.25 * x.shape[2])
                r = int(torch.randint(low, high, (), generator=generator))
                copy = F.interpolate(copy, (r, r), mode="nearest")
                top = int(torch.randint(0, high - r + 1, (), generator=generator))
                left = int(torch.randint(0, high - r + 1, (), generator=generator))
                copy = F.pad(copy, (left, high - r - left, top, high - r - top))
            loss = loss + F.cross_entropy(model(copy), y, reduction="sum") / 5
        (gradient,) = torch.autograd.grad(loss, x_nes)
        gradient = F.conv2d(gradient, kernel, padding=3, groups=3)
        g = mu * g + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x_t = (x_t + alpha * g.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return x_t


def test_si_ni_ti_dim_is_one_recipe(network):
    model = network("relu", torch.float64)
    x = rand(3, 3, 16, 16, dtype=torch.float64)
    y = model(x).argmax(1)
    fast, slow = (f(model, x, y, 0.06, 10, torch.Generator().manual_seed(5)) for f in (si_ni_ti_dim, slow_si_ni_ti_dim))
    assert torch.allclose(fast, slow, atol=1e-9)
    assert ((fast - x).abs().flatten(1).amax(1) > 0.02).all()


def test_black_box_estimates_drive_the_same_loop(planes, x):
    y = planes(x).argmax(1)
    exact = ascend(planes, x, y, Recipe(objectives.margin(), L2(0.2), step_rule=0.1, keep="last"), steps=5)
    measured = ascend(
        planes,
        x,
        y,
        Recipe(objectives.margin(), L2(0.2), step_rule=0.1, keep="last", estimate=estimators.finite_differences(1e-4)),
        steps=5,
    )
    assert torch.allclose(exact, measured, atol=1e-5)


def test_bad_settings_are_named(planes, x):
    y = planes(x).argmax(1)
    for options, error, words in (
        ({"steps": 0}, InputError, "at least 1"),
        ({"restarts": 0}, InputError, "at least 1"),
        ({"keep": "first"}, Unsupported, "keep='first'"),
        ({"keep": "last", "restarts": 2}, Unsupported, "choose between restarts"),
    ):
        with pytest.raises(error, match=words):
            ascend_with(planes, x, y, objectives.margin(), Linf(0.1), **{"steps": 1, "step_size": 0.1, **options})
    with pytest.raises(Unsupported, match="norm 'l9'"):
        ball("l9", 0.1)


# --- what only shows in combination ----------------------------------------------------------------------------------


@pytest.fixture
def curved(network):
    model = network("smooth", torch.float64)
    x = rand(6, 3, 8, 8, seed=2, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def margins(model, x, y):
    return objectives.margin()(Targets(y, None, torch.arange(len(x))).step(model, x, model(x))).detach()


def test_look_ahead_is_judged_where_it_stands_not_where_it_peeks(curved):
    model, x, y = curved
    move = moves.look_ahead(0.9)
    best = ascend(model, x, y, Recipe(objectives.margin(), Linf(0.1), step_rule=0.02, move=move), steps=8)
    lasts = [
        ascend(model, x, y, Recipe(objectives.margin(), Linf(0.1), step_rule=0.02, move=move, keep="last"), steps=n)
        for n in range(1, 9)
    ]
    iterates = torch.stack([margins(model, v, y) for v in (x, *lasts)]).amax(0)
    assert torch.allclose(margins(model, best, y), iterates)


def test_views_are_not_what_is_judged(curved):
    """The best iterate is the one that is best as itself, not at its first look."""
    model, x, y = curved
    run = {"steps": 6, "step_size": 0.04, "views": lambda v, g: iter([1 - v])}
    best = ascend_with(model, x, y, objectives.margin(), Linf(0.2), **run)
    lasts = [
        ascend_with(model, x, y, objectives.margin(), Linf(0.2), **{**run, "steps": n}, keep="last")
        for n in range(1, 7)
    ]
    assert torch.allclose(margins(model, best, y), torch.stack([margins(model, v, y) for v in (x, *lasts)]).amax(0))


def test_every_look_at_a_random_model_is_a_draw_of_its_own(network):
    model, calls = network(), []
    model.module[0].register_forward_hook(lambda *_: calls.append(1))
    x = rand(1, 3, 8, 8)
    view = views.eot(lambda v, g: v, samples=10)
    ascend(
        model,
        x,
        torch.tensor([0]),
        Recipe(objectives.margin(), Linf(0.1), step_rule=0.01, views=view, keep="last"),
        steps=3,
    )
    assert len(calls) == 30


def test_iterates_of_a_changing_objective_are_compared_by_its_last_weights(curved):
    model, x, y = curved

    def darkness(step):
        return -step.x.flatten(1).mean(1)

    both = objectives.margin() + (lambda progress: 1 + 100 * progress) * objectives.objective(darkness)
    targets = Targets(y, None, torch.arange(6))
    run = {"steps": 15, "step_size": 0.0005}
    best = ascend_with(model, x, y, both, Linf(0.005), **run)
    last = ascend_with(model, x, y, both, Linf(0.005), **run, keep="last")
    still = model(best).argmax(1) == y  # a success would come before any value
    assert still.sum() >= 4
    found, end, start = (both(targets.step(model, v, model(v), 1.0))[still] for v in (best, last, x))
    assert (found >= end - 1e-9).all()
    assert (found > start).all()


def test_later_success_beats_a_better_failure(curved):
    """`rank` decides among successes and among failures, never between the two."""
    model, x, y = curved
    x_adv = ascend(
        model,
        x,
        y,
        Recipe(objectives.margin(), Linf(0.3), step_rule=0.05, rank=lambda step, value: -value),
        steps=12,
    )
    fooled = ascend(model, x, y, Recipe(objectives.margin(), Linf(0.3), step_rule=0.05), steps=12)
    assert torch.equal(model(x_adv).argmax(1) != y, model(fooled).argmax(1) != y)
    assert (model(x_adv).argmax(1) != y).any()


def test_restarts_leave_alone_what_has_succeeded(curved):
    model, x, y = curved
    once = ascend(model, x, y, Recipe(objectives.margin(), Linf(0.08), step_rule=0.02, keep="success"), steps=8)
    done = model(once).argmax(1) != y
    assert done.any()
    with model.counting() as count:
        again = ascend(
            model,
            x,
            y,
            Recipe(objectives.margin(), Linf(0.08), step_rule=0.02, keep="success"),
            steps=8,
            restarts=2,
            generator=torch.Generator().manual_seed(0),
        )
    assert torch.equal(again[done], once[done])
    assert count.backwards < 2 * 8 * len(x)


def test_a_random_start_is_taken_when_asked(planes, x):
    y = planes(x).argmax(1)
    run = {"steps": 1, "step_size": 0.0, "keep": "last"}
    still = ascend_with(planes, x, y, objectives.margin(), Linf(0.1), **run)
    moved = ascend_with(
        planes, x, y, objectives.margin(), Linf(0.1), **run, random_start=True, generator=torch.Generator()
    )
    assert torch.equal(still, x)
    assert ((moved - x).abs().flatten(1).amax(1) > 0.05).all()


def test_gradients_that_are_no_numbers_move_nothing(planes, x):
    def broken(step):
        return (step.x.flatten(1).sum(1) * 0).sqrt() + step.logits[:, 0] * float("nan")

    y = planes(x).argmax(1)
    x_adv = ascend(planes, x, y, Recipe(objectives.objective(broken), Linf(0.1), step_rule=0.1, keep="last"), steps=2)
    assert torch.equal(x_adv, x)


def test_a_model_without_gradient_moves_nothing_and_does_not_crash(x):
    class Detached(Planes):
        def forward(self, x):
            return super().forward(x.detach())

    model = Classifier(Detached())
    y = model(x).argmax(1)
    assert torch.equal(ascend(model, x, y, Recipe(objectives.margin(), Linf(0.1), step_rule=0.1), steps=2), x)


def test_tiny_gradients_are_directions_too(planes, x):
    x, model = x.float(), Classifier(Planes(classes=2).float())
    y = model(x).argmax(1)
    faint = 1e-25 * objectives.margin()
    x_adv = ascend(model, x, y, Recipe(faint, L2(1.0), step_rule=0.01, keep="last"), steps=1)
    assert torch.allclose((x_adv - x).flatten(1).norm(dim=1), torch.full((6,), 0.01), rtol=1e-3)


def test_maps_without_a_gradient_cannot_be_steered(network):
    from underfire.interpreters import cam

    model, x = network(), rand(2, 3, 8, 8)
    objective = objectives.keep_map(lambda m, v, c: cam(m, v.detach(), c), rand(2, 1, 4, 4))
    with pytest.raises(Unsupported, match="not differentiable"):
        ascend(model, x, torch.tensor([0, 1]), Recipe(objective, Linf(0.1), step_rule=0.1), steps=1)


def test_sizes_of_the_wrong_length_or_no_number_are_named(planes, x):
    y = planes(x).argmax(1)
    for size, words in ((torch.ones(2), "one per sample"), (float("nan"), "finite")):
        with pytest.raises(InputError, match=words):
            ascend(planes, x, y, Recipe(objectives.margin(), Linf(0.1), step_rule=size), steps=1)


def test_watch_sees_every_iterate_and_changes_nothing(curved):
    model, x, y = curved
    seen = []
    for keep, count in (("best", 6), ("last", 6)):
        recipe = Recipe(objectives.margin(), Linf(0.1), step_rule=0.02, keep=keep)
        seen.clear()
        watched = ascend(model, x, y, recipe, steps=5, watch=seen.append)
        assert torch.equal(watched, ascend(model, x, y, recipe, steps=5))
        assert [step.progress for step in seen] == [0, 0.2, 0.4, 0.6, 0.8, 1]
        assert len(seen) == count
        assert torch.equal(seen[0].x, x)
        assert not any(step.x.requires_grad or step.logits.requires_grad for step in seen)


def test_an_adaptive_step_rule_goes_with_retirement(curved):
    """Rows that leave take nothing from the rows that stay: the memory of the rule follows its row."""
    model, x, y = curved
    recipe = Recipe(objectives.margin(), Linf(0.05), step_rule=step_rules.halving(), keep="success")
    together = ascend(model, x, y, recipe, steps=20)
    for i in range(len(x)):
        alone = ascend(model, x[i : i + 1], y[i : i + 1], recipe, steps=20)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-9)


def test_apgd_is_the_loop_with_its_step_rule(curved):
    model, x, y = curved
    recipe = Recipe(objectives.margin(), Linf(0.01), step_rule=step_rules.halving())
    ours = ascend(model, x, y, recipe, steps=25)
    apgd = uf.attacks.apgd(
        model, x, y, eps=0.01, steps=25, objective=objectives.margin(), random_start=False, candidates=0
    )
    assert torch.allclose(ours, apgd, atol=1e-12)
