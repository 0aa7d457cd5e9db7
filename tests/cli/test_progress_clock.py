"""Times of progress lines: minutes, hours, and days where hours would be unreadable."""

import pytest

from underfire.cli.progress import clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "0:05"), (3661, "1:01:01"), (47 * 3600, "47:00:00"), (1.39e9, "16,087 days")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
