"""A network of two flat boundaries, whose nearest points are known in every norm."""

from __future__ import annotations

import pytest

from tests.networks import TwoBoundaries


@pytest.fixture
def two_boundaries() -> TwoBoundaries:
    """Return a linear classifier whose nearest adversarial examples are known."""
    return TwoBoundaries()
