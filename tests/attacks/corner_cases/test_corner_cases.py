"""Corner cases: what each transformation is, and the strength at which a known classifier errs."""

import pytest
import torch

import underfire as uf
from tests.networks import rand
from underfire.attacks.corner_cases import Transformation, search_strength, synthesise, transformations
from underfire.errors import DataError, InputError, Unsupported
from underfire.records import Batch

EVERY = ("rotation", "shear", "scale", "translation", "brightness", "contrast", "complement", "noise", "blur", "fog",
         "jpeg", "scale_0.6+rotation_-30")  # fmt: skip


def applied(name, x, strength=1.0):
    return transformations(name)[0].apply(x, torch.full((len(x),), strength, dtype=x.dtype))


class Bright(torch.nn.Module):
    """Class 1 as soon as the mean brightness is above one half."""

    def forward(self, x):
        lead = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-lead, lead], 1)


def grey(*values):
    x = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Batch(x, (x[:, 0, 0, 0] > 0.5).long(), tuple(map(str, values)))


@pytest.mark.parametrize("name", EVERY)
def test_strength_zero_changes_nothing_and_one_does(name):
    x = rand(3, 3, 8, 11)
    assert torch.equal(applied(name, x, 0.0), x)
    changed = applied(name, x)
    assert changed.shape == x.shape and not torch.equal(changed, x) and 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(changed, applied(name, x))  # the same noise and fog in every call


def test_transformations_have_their_closed_forms():
    x = rand(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(applied("rotation_90", x), x.rot90(1, (2, 3)), atol=1e-12)
    assert torch.allclose(applied("rotation_180", x, 0.5), x.rot90(1, (2, 3)), atol=1e-12)
    assert torch.allclose(applied("rotation_-90", x), x.rot90(-1, (2, 3)), atol=1e-12)
    moved = applied("translation_0.25", x)
    assert torch.allclose(moved[..., 2:, 2:], x[..., :-2, :-2]) and not moved[..., :2, :].any()
    assert torch.allclose(applied("brightness", x, 0.5), (x + 0.475).clamp(max=1))
    assert torch.allclose(applied("contrast", x, 0.5), (3 * x).clamp(max=1))
    assert torch.equal(applied("complement", x), 1 - x) and torch.equal(applied("complement", x, 0.9), x)
    both = applied("contrast_0.5+rotation_90", x)
    assert torch.allclose(both, applied("rotation_90", 0.5 * x), atol=1e-12)
    # half the size: the sum over all pixels is a quarter
    dot = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    dot[..., 6:10, 6:10] = 1
    assert applied("scale_0.5", dot).sum() == pytest.approx(4)


def test_a_shear_moves_a_point_by_its_distance_from_the_middle():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 6, 4] = 1  # two rows below the middle
    moved = applied("shear_0.5", x)[0, 0]
    rows, columns = torch.arange(9.0).double() - 4, torch.arange(9.0).double() - 4
    centre = (moved.sum(1) @ rows / moved.sum(), moved.sum(0) @ columns / moved.sum())
    assert centre == pytest.approx((2, 1), abs=1e-6)


def test_the_strength_at_which_the_model_errs_is_known():
    batch = grey(0.1, 0.2, 0.3, 0.4)
    # 0.95 s must exceed 0.5 minus the grey value: half of the images err from s = 0.2 / 0.95 on, and 0.4 / 0.95 for all
    found = search_strength(Bright(), batch, "brightness", error_rate=0.5, strengths=100)
    assert found.value == pytest.approx(0.22) and found.setting == "brightness 0.209 added"
    assert found.errors[found.value].value == 0.5 and found.errors[found.value].n == 4
    assert search_strength(Bright(), batch, "brightness", error_rate=1.0, strengths=100).value == pytest.approx(0.43)
    for chunk in (7, 1000):
        assert search_strength(Bright(), batch, "brightness", error_rate=0.5, strengths=100, chunk=chunk).value == 0.22
    none = search_strength(Bright(), batch, "rotation")
    assert none.value is None and len(none.errors) == 20 and none.setting == ""


def test_successes_and_failures_are_kept_apart():
    batch = grey(0.1, 0.2, 0.3, 0.4, 0.9)
    wrong = Batch(batch.x, batch.y.clone().fill_(0), batch.ids)  # the last image is misclassified from the start
    bright, turned = synthesise(Bright(), wrong, ("brightness", "rotation"), error_rate=0.5, strengths=100)
    assert bright.successful.ids == ("0.3/brightness", "0.4/brightness")
    assert bright.failed.ids == ("0.1/brightness", "0.2/brightness")
    assert bool((Bright()(bright.successful.x).argmax(1) != bright.successful.y).all())
    assert torch.allclose(bright.failed.x[0], torch.full((1, 4, 4), 0.1 + 0.95 * 0.22, dtype=torch.float64))
    assert turned.strength.value is None and len(turned.successful) == len(turned.failed) == 0


def test_strengths_can_be_searched_on_other_images():
    others, batch = grey(0.1, 0.2, 0.3, 0.4), grey(0.05, 0.45)
    (found,) = synthesise(Bright(), batch, ("brightness",), searched=others, error_rate=0.5, strengths=100)
    assert found.strength.value == pytest.approx(0.22) and found.strength.errors[found.strength.value].n == 4
    assert found.successful.ids == ("0.45/brightness",) and found.failed.ids == ("0.05/brightness",)


def test_the_attack_returns_the_mildest_transformation_that_fools_the_model():
    x, y, _ = (batch := grey(0.1, 0.4)).x, batch.y, batch.ids
    names = ("rotation", "brightness", "contrast")
    found = uf.attacks.corner_cases(Bright(), x, y, transformations=names, strengths=20)
    # 0.4: contrast (1 + 4 s) 0.4 > 0.5 from s = 0.0625 on; 0.1: brightness from s = 0.42 on
    assert torch.allclose(found[1], torch.full_like(x[1], 0.56)) and torch.allclose(found[0], x[0] + 0.95 * 0.45)
    fixed = uf.attacks.corner_cases(Bright(), x, y, transformations="brightness", strengths=1, eps=0.2)
    assert torch.allclose(fixed, x + 0.19)  # whether it fools the model or not


@pytest.mark.parametrize(
    ("names", "fact"),
    [("rotatin", "rotation"), ("rotation_x", "rotation_70"), ("shear_1", "0.9"), ((), "one or more"),
     (("blur", "blur"), "different")],
)  # fmt: skip
def test_a_wrong_name_is_refused(names, fact):
    with pytest.raises(InputError, match=fact):
        uf.attacks.corner_cases(Bright(), *grey(0.1), transformations=names)


def test_bad_input():
    with pytest.raises(DataError, match="none of the 1"):
        search_strength(Bright(), Batch(grey(0.1).x, torch.tensor([1]), ("a",)), "rotation")
    with pytest.raises(InputError, match="error_rate"):
        search_strength(Bright(), grey(0.1), "rotation", error_rate=60)
    with pytest.raises(Unsupported, match="no goal"):
        uf.attacks.corner_cases(Bright(), *grey(0.1), goal=torch.tensor([1]))
    assert isinstance(transformations("fog")[0], Transformation)
