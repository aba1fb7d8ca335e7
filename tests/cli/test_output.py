"""Progress for people and for logs: bars on a terminal, lines elsewhere, silence when asked for."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console

from benchmark.cli import output
from benchmark.cli.run_display import RunDisplay


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to stderr, which is no terminal here."""
    stream = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=stream, highlight=False, width=80))
    return stream


def count_to(n: int) -> None:
    with output.watching() as watch:
        for done in range(n):
            watch("faces", done + 1, n)


def test_what_is_quick_or_quiet_leaves_no_line_in_a_log(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_to(100)
    with output.busy("comparing"):
        pass
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.0)
    with output.speaking("run", quiet=True), output.busy("comparing"):
        time.sleep(0.05)
    assert said.getvalue() == ""


@pytest.mark.parametrize("line", ["faces: 2 of 8 (25 %)", "faces …"])
def test_a_long_step_leaves_lines_in_a_log_until_its_end(
    line: str, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reports of progress, or without any, as in a library."""
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.05)
    deadline = time.monotonic() + 10
    with output.busy("faces") if "…" in line else output.watching() as watch:
        if watch is not None:
            watch("faces", 2, 8)
        while said.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = said.getvalue().splitlines()
    assert len(lines) >= 3
    assert all(text.startswith(line) for text in lines)
    assert "\x1b" not in said.getvalue()
    after = said.getvalue()
    time.sleep(0.2)
    assert said.getvalue() == after


def test_downloads_and_stages_are_lines_of_a_log(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.02)
    with RunDisplay(1) as display:
        display.say("[bold]downloading[/] vgg16_notop.h5")
        for stage in (("frozen part, faces", 64, 192), ("figures", 0, 0)):
            display.show_stage(*stage)
            time.sleep(0.2)
    lines = {"downloading vgg16_notop.h5", "frozen part, faces: 64 of 192 (33 %)", "figures … 0 s"}
    assert lines <= set(said.getvalue().splitlines())


def test_a_width_into_which_no_table_fits_is_not_taken() -> None:
    code = "from benchmark.cli import output; print(output.out.width)"
    for given, taken in (("0", 80), ("x", 80), ("90", 90)):
        environment = os.environ | {"COLUMNS": given}
        width = subprocess.check_output([sys.executable, "-c", code], env=environment)
        assert int(width) == taken


def test_a_terminal_gets_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=stream, force_terminal=True, width=80))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    count_to(3)
    for part in ("\x1b", "3/3", ":"):  # hours:minutes:seconds
        assert part in stream.getvalue()


def test_what_the_system_refuses_is_a_sentence_wherever_it_is_met(
    said: io.StringIO, tmp_path: Path
) -> None:
    with pytest.raises(typer.Exit) as ended, output.speaking("run"):
        (tmp_path / "absent" / "file").write_text("", encoding="utf-8")
    assert ended.value.exit_code == output.ExitCode.USAGE
    sentence = " ".join(said.getvalue().split())
    assert sentence.startswith("Error: No such file or directory (")
    assert "--debug" in sentence
    # A reader that went away is no error of ours.
    with pytest.raises(BrokenPipeError), output.speaking("list"):
        raise BrokenPipeError
