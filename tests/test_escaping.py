"""Names that hold HTML, on every page that is written: shown as text, and nothing else changes."""

import dataclasses
import html
import re
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt  # comes with rich

from benchmark import registry
from benchmark.comparison.library import Library, read_run
from benchmark.comparison.rows import Row
from benchmark.data.dataset import FaceSet
from benchmark.reporting import board_tables
from benchmark.reporting.card import model_card
from benchmark.reporting.explore import Explored, write_exploration
from benchmark.tuning.search import search, write_pages
from benchmark.tuning.study import TrialQueue
from tests.conftest import ROOT
from tests.made_runs import an_experiment, made_up_predictions
from tests.reporting.boards import a_board, a_row
from tests.reporting.stores import builder, evidence_of, finish, page_of
from tests.reporting.test_card import changed
from tests.tuning.planted import a_study, scored

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna and plotly warn of each other

HOSTILE = (
    "<script>alert(1)</script> \"><img src=x onerror=alert(1)> '><svg onload=alert(1)> "
    "</title></style></script><b>bold <a href='javascript:alert(1)'>click</a>"
)
"""What would end a text, an attribute in either quotes, a style or a script, and begin its own."""


class Skeleton(HTMLParser):
    """What a browser builds of a page: its tags with the names of their attributes, its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.words = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.words += " ".join(value or "" for _, value in attrs)
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        self.words += data


def report(folder: Path, name: str, _faces: FaceSet) -> str:
    """The report of one run; its data set, question, device and commit are called `name`."""
    runs = builder(folder / "mlruns", dataset=name)
    experiment = an_experiment("short", asks=f"Is it {name}?")
    finish(runs, experiment, n=80)
    for record in runs.records():
        for field in ("device", "commit"):
            changed(record, f"experiment..{field}", name)
    known = registry.experiments() | {experiment.name: experiment}
    library = Library(tuple(map(read_run, runs.records())), known, registry.suites())
    return page_of(evidence_of(runs, library=library))


def leaderboard(_folder: Path, name: str, _faces: FaceSet) -> str:
    """A leaderboard; rows, remarks, data set and notes are called `name`."""
    row = dataclasses.replace(a_row(), remarks=(name,))
    board = a_board(row, Row("reference", name), Row("missing", name))
    return board_tables.page(dataclasses.replace(board, dataset=name, notes=(name,)))


def card(folder: Path, name: str, _faces: FaceSet) -> str:
    """A card as a browser is shown it; whatever is text in the run's description is `name`."""
    runs = builder(folder / "mlruns")
    record = runs.done(an_experiment(tasks=("gender",)), made_up_predictions({"gender": 1.5}))
    for field in ("experiment.asks", "dataset.name", ".device", ".protocol_name", ".commit"):
        changed(record, f"experiment.{field}", name)
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(model_card(record))


def exploration(folder: Path, name: str, faces: FaceSet) -> str:
    """The page on a data set, which is called `name` and came from a file of that name."""
    explored = Explored(called(faces, name))
    return write_exploration(explored, folder / "explored")[0].read_text(encoding="utf-8")


def search_page(folder: Path, name: str, faces: FaceSet) -> str:
    """The page of a search on a data set that is called `name`."""
    study = a_study(folder, called(faces, name), sampler="random")
    queue = TrialQueue(study)
    list(search(queue, scored(), 3))
    return write_pages(study, queue.snapshot())[1].read_text(encoding="utf-8")


def called(faces: FaceSet, name: str) -> FaceSet:
    return FaceSet(faces.folder, {**faces.manifest, "name": name, "source": name}, faces.table)


@pytest.mark.parametrize("write", [report, leaderboard, card, exploration, search_page])
def test_a_name_that_holds_html_is_text_and_nothing_else(
    write: Callable[[Path, str, FaceSet], str], tmp_path: Path, drawn_faces: FaceSet
) -> None:
    usual, hostile = (
        Skeleton(write(Path(tempfile.mkdtemp(dir=tmp_path)), name, drawn_faces))
        for name in ("plain", HOSTILE)
    )
    assert hostile.tags == usual.tags
    # Plotly's spelling of angle brackets undone, as a browser reads it.
    spelt = {"\\u003c": "<", "\\u003e": ">", "\\u002f": "/", '\\"': '"'}
    scripts = [re.sub("|".join(map(re.escape, spelt)), lambda found: spelt[found[0]], script)
               for script in hostile.scripts]  # fmt: skip
    assert not any(HOSTILE in script for script in scripts)
    escaped = html.escape(HOSTILE, quote=False)
    assert HOSTILE in hostile.words or any(escaped in script for script in scripts)


def test_every_module_that_writes_html_is_among_them() -> None:
    marks = r'<!doctype html|\.to_html\(|get_template\(|\b(template|page)\(\s*"|full_html'
    paths = (ROOT / "benchmark").rglob("*.py")
    found = {it.stem for it in paths if re.search(marks, it.read_text("utf-8"), re.IGNORECASE)}
    writers = {"report", "board_tables", "card", "explore", "search"}
    assert found == writers | {"tables"}, "what they write with, and all that write"
