"""Contracts are checked on tiny networks."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _tiny_networks(plain_convolutions: None) -> None:
    """Compute their convolutions without oneDNN."""
