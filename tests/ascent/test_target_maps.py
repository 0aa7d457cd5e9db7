"""Target maps: random patches, the map of another class, pictures, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks import rand, seeded
from underfire.ascent.parts import part, spelling
from underfire.ascent.target_maps import Clean, TargetMap, benign, other_class, picture, random_patch, target_maps
from underfire.audit.methods import values_of
from underfire.audit.spec import parse_attack
from underfire.cli.options import attack
from underfire.errors import DataError, InputError, Unsupported
from underfire.figures import save


def clean(side: int = 64, count: int = 40) -> Clean:
    """Clean maps of five classes, with the next class as the goal."""
    predicted = torch.arange(count) % 5
    return Clean(rand(count, 1, side, side), predicted, (predicted + 1) % 5)


def spread(m: Tensor) -> Tensor:
    """Return the variances of the places of the ones along their two axes, the smaller one first."""
    places = m[0].nonzero().double()
    return torch.linalg.eigvalsh(torch.cov(places.T))


def test_a_random_patch_has_the_shape_and_the_area_that_was_asked() -> None:
    for shape, largest in (("circle", 1.05), ("rectangle", 4.2)):
        maps = random_patch(shape, 0.1, 0.2).make(clean(), seeded())  # type: ignore[arg-type]
        assert maps.shape == (40, 1, 64, 64) and set(maps.unique().tolist()) == {0.0, 1.0}
        area = maps.flatten(1).mean(1)
        assert ((area > 0.09) & (area < 0.21)).all() and area.std() > 0.02
        for m, share in zip(maps, area, strict=True):
            low, high = spread(m)
            assert 1 <= high / low <= largest
            # the mean square distance of a disc of area A is A / 2π, of a rectangle of sides a, b (a² + b²) / 12
            square = float((low + high) / (share * 64 * 64))
            assert square == pytest.approx(1 / (2 * math.pi), rel=0.02) if shape == "circle" else square > 0.16
    centres = torch.stack([m[0].nonzero().double().mean(0) for m in maps])
    assert (centres.std(0) > 8).all()


def test_draws_of_a_patch() -> None:
    one, two, three = (random_patch().make(clean(7), seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert one.flatten(1).any(1).all() and not one.flatten(1).all(1).any()
    tiny = random_patch(smallest=1e-3, largest=1e-3).make(clean(4), seeded())
    assert (tiny.flatten(1).sum(1) == 1).all()  # at least one cell
    with pytest.raises(InputError, match=r"0\.5 and 0\.2"):
        random_patch(smallest=0.5, largest=0.2)
    with pytest.raises(Unsupported, match="triangle"):
        random_patch("triangle")  # type: ignore[arg-type]


def test_the_map_of_a_third_class() -> None:
    here = clean(4)
    maps = other_class().make(here, seeded())
    picked = (maps[:, None] == here.maps).flatten(2).all(2).int().argmax(1)
    classes = here.predicted[picked]
    assert not (classes == here.predicted).any() and not (classes == here.goal).any()
    assert len(picked.unique()) > 10
    two = Clean(here.maps[:2], here.predicted[:2], here.goal[:2])
    with pytest.raises(InputError, match="larger batch"):
        other_class().make(two, seeded())


def test_a_picture_is_a_file_or_an_array(tmp_path: Path) -> None:
    arrow = (rand(6, 8) > 0.5).float()
    save(arrow.expand(3, -1, -1), tmp_path / "arrow.png")
    here = Clean(rand(3, 1, 6, 8), torch.zeros(3).long(), torch.ones(3).long())
    for given in (str(tmp_path / "arrow.png"), arrow, arrow.numpy()):
        maps = target_maps(picture(given), here, resized=False, generator=seeded())
        assert maps.shape == (3, 1, 6, 8) and torch.equal(maps[2, 0], arrow)
    with pytest.raises(InputError, match=r"\(3, 6, 8\)"):
        picture(rand(3, 6, 8))
    for wrong in (None, [[1, 2], [3]], [["a"]]):
        with pytest.raises(InputError, match="an array"):
            picture(wrong)
    with pytest.raises(DataError, match="no image file"):
        picture(str(tmp_path / "none.png"))
    other = Clean(rand(3, 1, 3, 4), here.predicted, here.goal)
    with pytest.raises(InputError, match="resize=True"):
        target_maps(picture(arrow), other, resized=False, generator=seeded())
    assert target_maps(picture(arrow), other, resized=True, generator=seeded()).shape == (3, 1, 3, 4)


def test_the_clean_map_is_the_default() -> None:
    here = clean(4)
    for target in (None, benign()):
        assert target_maps(target, here, resized=False, generator=seeded()) is here.maps


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("benign", "benign()"),
        ("random_patch", "random_patch(shape='any', smallest=0.05, largest=0.3)"),
        ("random_patch(shape='circle')", "random_patch(shape='circle', smallest=0.05, largest=0.3)"),
        ({"name": "random_patch", "largest": 0.5}, "random_patch(shape='any', smallest=0.05, largest=0.5)"),
        ("other_class", "other_class()"),
    ],
)
def test_a_spec_names_a_target(written: Any, spelled: str) -> None:
    entry = parse_attack({"name": "adv2", "interpreter": "cam", "target": written})
    assert entry.options["target"] == spelled
    assert isinstance(values_of(entry)["target"], TargetMap)


def test_a_spec_names_a_picture(tmp_path: Path) -> None:
    save(rand(3, 6, 8), tmp_path / "arrow.png")
    file = str(tmp_path / "arrow.png")
    for written in ({"picture": file}, {"name": "picture", "file": file}, f"picture({file!r})"):
        entry = parse_attack({"name": "adv2", "interpreter": "cam", "target": written})
        assert entry.options["target"] == spelling("target", value=f"picture({file!r})")
        assert isinstance(values_of(entry)["target"], TargetMap)
    for wrong, words in (("random_path", "random_patch"), ({"pictur": "a.png"}, "picture"), (3, "target map")):
        with pytest.raises(InputError, match=words):
            parse_attack({"name": "adv2", "interpreter": "cam", "target": wrong})
    assert isinstance(part("target", value="benign"), TargetMap)


def test_the_command_line_names_a_target() -> None:
    entry = attack("adv2", ("target=random_patch(largest=0.2)", "weight=[5, 10]"), interpreter="cam")
    assert entry.options["target"] == "random_patch(shape='any', smallest=0.05, largest=0.2)"
    assert values_of(entry)["weight"] == (5.0, 10.0)
