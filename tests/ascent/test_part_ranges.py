"""Parts of a recipe refuse arguments outside their range, with the value in the message."""

import pytest

from underfire.ascent.moves import momentum
from underfire.ascent.parts import part
from underfire.ascent.step_rules import scheduled
from underfire.errors import InputError
from underfire.gradients.smoothing import translation_kernel
from underfire.gradients.views import input_diversity


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: momentum(-1), "-1"),
        (lambda: translation_kernel(3, sigma=0), "0"),
        (lambda: input_diversity(0.5, 1000), "1000"),
        (lambda: scheduled(-0.1), "-0.1"),
    ],
)
def test_range(make, value):
    with pytest.raises(InputError, match=value):
        make()


def test_messages_use_the_right_article():
    with pytest.raises(InputError, match="an objective"):
        part("objective", value=3)
