"""What a person sees of a download: its name and size once, then how far it is."""

import pytest

from benchmark.cli.run_display import RunDisplay


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
