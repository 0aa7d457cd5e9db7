"""Times of progress lines: minutes, hours, and days where hours would be unreadable; the remaining time."""

import time

import pytest

from underfire.cli.progress import clock, progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "0:05"), (3661, "1:01:01"), (47 * 3600, "47:00:00"), (1.39e9, "16,087 days")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_remaining_time_follows_the_share_of_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("underfire.cli.progress.EVERY", 0.01)
    monkeypatch.setattr("underfire.cli.progress.clock", lambda seconds: f"<{seconds:.6f}>")
    with progress("job", 1000, unit="images") as show:
        show(1, share=0.5)  # the first image was half of the work
        time.sleep(0.05)
    line = capsys.readouterr().err.splitlines()[0]
    assert "1/1000 images" in line
    assert float(line.split("<")[1].split(">")[0]) < 1.0  # and not a thousand times the time so far
