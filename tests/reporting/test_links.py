"""Every link of the pages leads somewhere."""

import re
import shutil
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from typer.testing import CliRunner

from benchmark.cli.main import app

STORE = Path(__file__).parent.parent / "golden" / "work"


def test_every_link_of_leaderboard_and_report_leads_to_a_file_or_a_place_of_the_page(
    tmp_path: Path,
) -> None:
    shutil.copytree(STORE, tmp_path / "mlruns" / "work")
    (tmp_path / "data").mkdir()
    places = ["--runs-dir", str(tmp_path / "mlruns"), "--data-dir", str(tmp_path / "data")]
    for command in ("leaderboard", "report"):
        result = CliRunner().invoke(app, [command, *places])
        assert result.exit_code == 0, result.output
    pages = sorted((tmp_path / "mlruns").glob("[lr]e*/*.html"))
    n_files = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        for href in map(unescape, re.findall(r'href="([^"]+)"', text)):
            if href.startswith(("data:", "http://", "https://")):
                continue
            if href.startswith("#"):
                assert href == "#" or href[1:] in ids, f"{page.name}: {href}"
            else:
                assert (page.parent / unquote(href)).exists(), f"{page.name}: {href}"
                n_files += 1
    assert {page.parent.name for page in pages} == {"leaderboards", "reports"}
    assert n_files > 10
