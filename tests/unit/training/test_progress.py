"""Descriptions of progress bars."""

import pytest

from ubert_training.running.progress import progress_bar, throughput_bar


def test_a_description_with_brackets_is_shown_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("filling /data[a]/[/b]", 1) as advance:
        advance(1)
    with throughput_bar("reading /data[a]/[/b]", 1) as advance_tokens:
        advance_tokens(1, 2)
    shown = capsys.readouterr().err
    assert "filling /data[a]/[/b]" in shown
    assert "reading /data[a]/[/b]" in shown
