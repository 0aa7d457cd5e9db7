"""Convolutions without oneDNN: on the tiny networks of the contracts, preparing one takes longer than computing it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _plain_convolutions() -> Iterator[None]:
    """Compute convolutions by torch's own kernels, which halves the time of a pass of a few images of 9 x 12 pixels.

    What a contract promises does not depend on the kernel; every other test, and the networks of the zoo, use oneDNN.
    """
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    yield
    torch.backends.mkldnn.enabled = before  # type: ignore[assignment]
