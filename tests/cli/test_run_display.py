"""What a person sees of a run: downloads, stages, epochs."""

import time

import pytest

from benchmark.cli import output
from benchmark.cli.run_display import RunDisplay, epoch_line
from benchmark.tasks import TaskName, combined
from benchmark.training.trainer import EpochResult


def test_a_download_is_named_once_and_quiet_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet, expected in ((False, "downloading vgg16_notop.h5\n"), (True, "")):
        with RunDisplay(1, quiet=quiet) as display:
            display.show_download("vgg16_notop.h5")
        assert capsys.readouterr().err == expected


def test_an_epochs_line_gives_the_score_that_selects_and_fits_a_terminal() -> None:
    rates: dict[TaskName, float] = {"age_group": 0.6081, "gender": 0.8402, "race": 0.6402}
    result = EpochResult(
        epoch=11, learning_rate=1e-4, train_loss=0.924, train_accuracy=rates, val_accuracy=rates,
        val_combined=combined(rates), is_best=True, epoch_seconds=80, images_per_second=258,
        fitted_accuracy={},
    )  # fmt: skip
    line = epoch_line(result, 30)
    assert f"val {100 * combined(rates):.1f} % (age group 60.8, gender 84.0, race 64.0)" in line
    assert len(line.replace("[green]", "").replace("[/]", "")) <= 80


def test_a_stage_is_followed_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.02)
    with RunDisplay(1, quiet=False) as display:
        display.show_stage("frozen part, faces", 64, 192)
        time.sleep(0.2)
        display.show_stage("intervals and pictures", 0, 0)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert "frozen part, faces: 64 of 192 (33 %)" in lines
    assert any(line.startswith("intervals and pictures …") for line in lines)
