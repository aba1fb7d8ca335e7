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
from tests.conftest import ROOT


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to stderr, which is no terminal here."""
    stream = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=stream, highlight=False, width=80))
    return stream


def count_to(n: int) -> None:
    with output.progress_bar() as progress:
        bar = progress.add_task("faces", total=n)
        for _ in range(n):
            progress.advance(bar)


def test_what_is_quick_leaves_no_line_in_a_log(said: io.StringIO) -> None:
    count_to(100)
    assert said.getvalue() == ""


def test_what_takes_long_leaves_lines_in_a_log(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.0)
    count_to(4)
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("faces: 1 of 4 (25 %)")
    assert len(lines) == 4
    assert "\x1b" not in said.getvalue()


def test_a_terminal_gets_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    monkeypatch.setattr(output, "err", console)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    count_to(3)
    assert "\x1b" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert ":" in stream.getvalue()  # hours:minutes:seconds


def test_quiet_says_nothing(said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.0)
    with output.progress_bar(quiet=True) as progress:
        progress.advance(progress.add_task("faces", total=1))
    with output.busy("comparing", quiet=True):
        pass
    assert said.getvalue() == ""


def test_what_has_no_foreseeable_end_is_said_once_it_takes_time(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with output.busy("comparing"):
        pass
    assert said.getvalue() == ""
    monkeypatch.setattr(output, "BUSY_SECONDS", 0.0)
    with output.busy("comparing"):
        deadline = time.monotonic() + 10
        while not said.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said.getvalue() == "comparing …\n"


@pytest.mark.parametrize(
    ("settings", "printed"), [({}, "\x1b[31mfailed\x1b[0m\n"), ({"NO_COLOR": "1"}, "failed\n")]
)
def test_no_color_is_heeded(settings: dict[str, str], printed: str) -> None:
    here = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    answer = subprocess.run(
        [sys.executable, "-c", "from benchmark.cli.output import out; out.print('[red]failed[/]')"],
        env=here | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": ""} | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == printed


def test_what_the_system_refuses_is_a_sentence_wherever_it_is_met(
    said: io.StringIO, tmp_path: Path
) -> None:
    with pytest.raises(typer.Exit) as ended, output.speaking("run"):
        (tmp_path / "absent" / "file").write_text("", encoding="utf-8")
    assert ended.value.exit_code == output.ExitCode.USAGE
    sentence = " ".join(said.getvalue().split())
    assert sentence.startswith("RunError: No such file or directory (")
    assert "--debug" in sentence


def test_a_reader_that_went_away_is_no_error_of_ours() -> None:
    with pytest.raises(BrokenPipeError), output.speaking("list"):
        raise BrokenPipeError


def test_a_step_that_reports_nothing_still_leaves_lines_in_a_log(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long step in a library, between two reports of progress, or without any."""
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.05)
    monkeypatch.setattr(output, "BUSY_SECONDS", 0.05)
    for begin in (output.progress_bar, lambda: output.busy("faces")):
        said.seek(0)
        said.truncate()
        with begin() as progress:
            if progress is not None:
                progress.update(progress.add_task("faces", total=8), completed=2)
            deadline = time.monotonic() + 10
            while said.getvalue().count("\n") < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        lines = said.getvalue().splitlines()
        assert len(lines) >= 3
        assert all(line.startswith(("faces: 2 of 8 (25 %)", "faces …")) for line in lines)
        time.sleep(0.2)
        assert said.getvalue().splitlines() == lines  # it falls silent with its end


def test_what_was_just_said_is_not_said_again(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 60.0)
    with output.PlainProgress() as progress:
        progress._said -= 59.9
        progress.note_said()
        progress.update(progress.add_task("faces", total=8), completed=2)
        time.sleep(0.2)
    assert said.getvalue() == ""
