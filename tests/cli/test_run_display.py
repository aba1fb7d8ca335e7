"""What a person sees of a download: its name and size once, then how far it is."""

import time

import pytest

from benchmark.cli import output
from benchmark.cli.run_display import RunDisplay, epoch_line
from benchmark.tasks import TaskName, combined
from benchmark.training.trainer import EpochResult


def said(capsys: pytest.CaptureFixture[str], *, quiet: bool) -> str:
    with RunDisplay(1, quiet=quiet) as display:
        for n_here in (0, 20_000_000, 58_889_256):
            display.show_download("vgg16_notop.h5", n_here, 58_889_256)
        display.show_download("another.pth", 1_000_000, None)
        display.show_download("another.pth", 2_000_000, None)
    return capsys.readouterr().err


def test_each_file_is_named_once_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, quiet=False).splitlines()
    assert lines == ["fetching vgg16_notop.h5, 58.9 MB", "fetching another.pth"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, quiet=True) == ""


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
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.0)
    with RunDisplay(1, quiet=False) as display:
        for n_done in (64, 128, 192):
            display.show_stage("frozen part, faces", n_done, 192)
        display.show_stage("intervals and pictures", 0, 0)
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert "frozen part, faces: 64 of 192 (33 %)" in lines
    assert any(line.startswith("intervals and pictures …") for line in lines)
