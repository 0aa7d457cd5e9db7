"""Attacks through a defence beside attacks around it, from made-up successes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from underfire.audit.around_through import Found, comparisons


def attacks(**fooled: float) -> list[Found]:
    """Attacks on one victim by their way, each of which fools a share of 100 images."""
    return [
        Found("V", way.replace("_", " "), "PGD", "linf", 0.1, np.arange(100) < 100 * share)
        for way, share in fooled.items()
    ]


@pytest.mark.parametrize(
    ("found", "blind", "hides"),
    [
        (attacks(around=0.9, through=0.2), set(), True),
        (attacks(around=0.2, through=0.9), set(), False),
        (attacks(around=0.5, through=0.5), set(), False),
        (attacks(around=0.3, through=0.9), {("V", "PGD")}, True),
        (attacks(around=0.0, through=0.0), {("V", "PGD")}, False),
    ],
)
def test_a_defence_hides_the_gradient_if_around_or_bpda_is_stronger(
    found: list[Found], blind: set[tuple[str, str]], hides: bool
) -> None:
    (one,) = comparisons(found, blind)
    assert one.hides is hides
    assert one.sentence.startswith("V ") and one.sentence.count(".") == 1 + one.sentence.count("0.1")
    assert one.left.value == pytest.approx(1 - max(np.mean(f.fooled) for f in found))


def test_without_bpda_the_rate_is_that_of_the_attack_or_zero() -> None:
    way = "through without BPDA"
    weak = [*attacks(around=0.5, through=0.9), Found("V", way, "PGD", "linf", 0.1, np.arange(100) < 10)]
    assert [c.hides for c in comparisons(weak, set())] == [True]
    (blind,) = comparisons(attacks(around=0.5, through=0.9), {("V", "PGD")})
    assert blind.without_bpda is not None and blind.without_bpda.value == 0


def test_an_unfinished_run_pairs_the_images_that_both_have() -> None:
    late = np.where(np.arange(100) < 40, np.arange(100) % 2, np.nan)
    (around,) = attacks(around=0.9)
    (one,) = comparisons([around, Found("V", "through", "PGD", "linf", 0.1, late)], set())
    assert one.through is not None and (one.through.value, one.through.n) == (0.5, 40)
    assert one.difference is not None and one.difference.n == 40 and one.left.n == 40
    later = np.where(np.arange(100) < 40, np.nan, 0.0)
    (apart,) = comparisons([replace(around, fooled=late), replace(around, way="through", fooled=later)], set())
    assert apart.left.n == 0 and not apart.hides and "no image has met every attack" in apart.sentence
