"""What every attack of the catalogue promises; a new attack is tested here without a line of its own."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand
from underfire.errors import DataError, InputError, Unsupported
from underfire.measures import perturbation

#: An attack on one kind of model only, which its card names, has tests of its own.
CARDS = {card.name: card for card in uf.cards("attack") if not card.facts.models}
#: A middling and a generous size, by norm.
EPS = {"linf": 0.1, "l2": 1.0, "l1": 10.0, "l0": 20.0, "pixels": 5, "flow": 0.5, "patch": 0.2}
BIG = {"linf": 0.5, "l2": 8.0, "l1": 120.0, "l0": 300.0, "pixels": 100, "flow": 4.0, "patch": 0.55}
#: What an attack must be given, such as the interpreter of one on explanations, and settings that keep the tests quick.
SETTINGS = {
    "carlini_wagner": {"steps": 30, "binary_search_steps": 4, "step_size": 0.05, "c": 1.0},
    "fooling_images": {"steps": 30, "population": 40},
    "apgd": {"steps": 20},
    "autoattack": {"steps": 20, "queries": 100},
    "fab": {"steps": 20},
    "sigma_zero": {"steps": 60},
    "lbfgs": {"steps": 30, "binary_search_steps": 6, "candidates": 1},
    "square": {"queries": 200},
    "adv2": {"interpreter": uf.interpreters.cam, "steps": 8, "warm_steps": 3},
    "adversarial_patch": {"steps": 60},
    "eot": {"steps": 10, "samples": 4},
    "substitute": {"queries": 60, "epochs": 5},
    "ead": {"steps": 60, "binary_search_steps": 6},
    "boundary": {"queries": 300},
    "finite_differences": {"queries": 1000},
    "hop_skip_jump": {"queries": 500},
    "nes": {"queries": 1000, "samples": 20},
    "one_pixel": {"population": 50, "steps": 10},
    "spsa": {"queries": 1000, "samples": 20},
    "zoo": {"queries": 2600},
    "uap": {"held_out": False, "steps": 4},  # of five images there is little to learn about others
    "adversarial_transformation": {"held_out": False, "steps": 25, "width": 8, "step_size": 0.01},
}

every_attack = pytest.mark.parametrize("name", CARDS)
every_norm = pytest.mark.parametrize(("name", "norm"), [(n, norm) for n in CARDS for norm in CARDS[n].facts.norms])


def facts(name):
    return CARDS[name].facts


def _by_labels(name):
    """Whether it transfers what it learned from labels alone."""
    return CARDS[name].facts.knowledge == "black-box" and facts(name).atlas == "AML.T0043.002"


def attack(name, model, x, y, **changes):
    options = {**SETTINGS.get(name, {}), **changes}
    if "norm" in options and "norm" not in CARDS[name].options:
        options.pop("norm")  # the attack has one norm only
    return CARDS[name](model, x, y, generator=torch.Generator(x.device).manual_seed(1), **options)


@pytest.fixture
def x():
    x = rand(5, 3, 9, 12)  # not square
    x[:, :, 0, 0], x[:, :, 1, 1] = 0, 1
    return x


@every_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_box_and_size(network, x, name, norm, dtype):
    model, x = network("relu", dtype), x.to(dtype)
    eps = torch.linspace(0, 2, len(x), dtype=dtype) * EPS.get(norm, 0.5)  # per sample, one of them zero
    before = x.clone()
    x_adv = attack(name, model, x, model(x).argmax(1), eps=eps, norm=norm)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert not x_adv.requires_grad
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert perturbation.within(x, x_adv, norm, eps).all()
    assert torch.equal(x, before)
    assert torch.equal(x_adv[0], x[0])  # eps 0 changes nothing


@every_attack
def test_same_generator_same_result_and_global_seed_untouched(network, x, name):
    model = network()
    y = model(x).argmax(1)
    state = torch.get_rng_state()
    first, second = (attack(name, model, x, y) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@every_attack
def test_the_model_is_left_as_it_was_found(network, x, name):
    model = network()
    model.train()
    model.module[0].eval()
    model.module[2].weight.requires_grad_(False)
    weights = {k: v.clone() for k, v in model.state_dict().items()}

    def state():
        hooks = [
            (m.training, len(m._forward_hooks), len(m._backward_hooks), "forward" in vars(m)) for m in model.modules()
        ]
        return hooks, [(p.requires_grad, p.grad) for p in model.parameters()]

    before = state()
    attack(name, model, x, torch.zeros(len(x), dtype=torch.int64))
    assert state() == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@every_attack
def test_a_goal_works_or_raises(network, x, name):
    model = network()
    logits = model(x)
    y, goal = logits.argmax(1), logits.topk(2, dim=1).indices[:, 1]
    if "targeted" not in facts(name).goals:
        with pytest.raises(Unsupported, match="goal"):
            attack(name, model, x, y, goal=goal)
        return
    eps = BIG.get(CARDS[name].facts.norms[0], 1.0) / 2.5
    x_adv = attack(name, model, x, y, goal=goal, eps=eps)
    reached = model(x_adv)
    before, after = (m.log_softmax(1).gather(1, goal[:, None]).squeeze(1) for m in (logits, reached))
    if not _by_labels(name):  # the labels of these images are all the same: nobody has seen the goal
        # A goal that leads is a success, even where a third class has gained more than it.
        assert ((after > before) | (reached.argmax(1) == goal)).float().mean() >= (0.6 if facts(name).random else 1)
    with pytest.raises(InputError, match="goal equals the label"):
        attack(name, model, x, y, goal=y)


@every_attack
def test_a_saturated_model_does_not_defeat_it(network, x, name):
    model = network()
    with torch.no_grad():
        model.module[-1].weight.mul_(1e4)
        model.module[-1].bias.mul_(1e4)
    y = model(x).argmax(1)
    assert (model(x).softmax(1).amax(1) == 1).all()
    x_adv = attack(name, model, x, y, eps=BIG.get(CARDS[name].facts.norms[0], 1.0))
    fooled = (model(x_adv).argmax(1) != y).float().mean()
    assert fooled >= 0.6


@every_norm
def test_batch_equals_singles(network, x, name, norm):
    """With a radius per sample; what is random by its card is asked without its random start, or not at all."""
    options = {"random_start": False} if "random_start" in CARDS[name].options else {}
    if facts(name).universal:
        pytest.skip("universal by its card: one change for the whole batch")
    if facts(name).random and not options:
        pytest.skip("random by its card: the draws of a batch are not those of single images")
    model = network("relu", torch.float64)
    x = x.double()
    y = model(x).argmax(1)
    eps = torch.linspace(0.2, 2, len(x), dtype=torch.float64) * EPS.get(norm, 0.5)
    batch = attack(name, model, x, y, eps=eps, norm=norm, **options)
    for i in range(len(x)):
        single = attack(name, model, x[i : i + 1], y[i : i + 1], eps=eps[i : i + 1], norm=norm, **options)
        assert torch.allclose(batch[i : i + 1], single, atol=1e-9)


@every_norm
def test_a_radius_in_another_precision_is_fine(network, x, name, norm):
    model = network()
    eps = torch.full((len(x),), EPS.get(norm, 0.5), dtype=torch.float64)
    x_adv = attack(name, model, x, model(x).argmax(1), eps=eps, norm=norm)
    assert x_adv.dtype == torch.float32


@every_attack
@pytest.mark.parametrize("channels", [1, 3])
def test_two_classes_one_channel_half_precision(network, name, channels):
    model = network(channels=channels, classes=2)
    x = rand(3, channels, 8, 8, seed=4)
    y = model(x).argmax(1)
    model.module.to(torch.bfloat16)
    x_adv = attack(name, model, x, y)
    assert x_adv.dtype == torch.float32
    assert torch.isfinite(x_adv).all()


@every_attack
def test_an_already_misclassified_image_stays_a_success(network, x, name):
    model = network()
    wrong = (model(x).argmax(1) + 1) % 4
    x_adv = attack(name, model, x, wrong, eps=EPS.get(CARDS[name].facts.norms[0], 0.5) / 10)
    assert (model(x_adv).argmax(1) != wrong).float().mean() >= 0.8


@every_attack
def test_an_empty_batch_comes_back_empty(network, name):
    x = rand(0, 3, 8, 8)
    assert attack(name, network(), x, torch.zeros(0, dtype=torch.int64)).shape == x.shape


@every_attack
def test_bad_input_is_one_clear_error(network, x, name):
    model, y = network(), torch.zeros(5, dtype=torch.int64)
    cases = [
        (DataError, r"pixels must be in \[0, 1\]", (x + 0.5, y), {}),
        (DataError, r"pixels must be in \[0, 1\]", (x * float("nan"), y), {}),
        (DataError, "float32 or float64", ((x * 255).to(torch.uint8), y), {}),
        (DataError, "float32 or float64", (x.bfloat16(), y), {}),
        (DataError, "labels must be int64", (x, y[:2]), {}),
        (DataError, "label 9 is outside the model's 4 classes", (x, y + 9), {}),
        (InputError, "eps must be >= 0 and finite, got -0.1", (x, y), {"eps": -0.1}),
        (InputError, "one per sample", (x, y), {"eps": torch.ones(2)}),
    ]
    cases += [(InputError, "at least 1", (x, y), {n: 0}) for n in ("steps", "queries") if n in CARDS[name].options]
    if "norm" in CARDS[name].options:
        cases.append((Unsupported, "norm 'l7'", (x, y), {"norm": "l7"}))
    for error, words, arguments, options in cases:
        with pytest.raises(error, match=words):
            attack(name, model, *arguments, **options)


@every_attack
def test_weight_gradients_are_never_computed(network, x, name):
    model = network()

    class Spy(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            assert not any(p.requires_grad for p in self.body.parameters())
            return self.body(x)

    model.module = Spy(model.module)
    attack(name, model, x, torch.zeros(5, dtype=torch.int64))


@every_attack
def test_what_cannot_be_fooled_is_never_a_success(network, x, name):
    """A model that says the same of every image: an attack of minimum size marks it by the clean image."""
    model, y = network(), torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad():
        model.module[-1].weight.mul_(1e-3)
        model.module[-1].bias.copy_(torch.tensor([100.0, 0.0, 0.0, 0.0]))
    x_adv = attack(name, model, x, y)
    assert (model(x_adv).argmax(1) == y).all()
    assert torch.isfinite(x_adv).all()
    if facts(name).minimal:
        assert torch.equal(x_adv, x)
