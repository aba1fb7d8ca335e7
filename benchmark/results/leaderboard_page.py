"""A leaderboard as one HTML page that needs nothing else: sorted by a click, filtered by a word.

Every text is escaped by Jinja2. Without scripts the page still shows all rows, by rank.
"""

import functools
from collections.abc import Iterator
from typing import Any, Final

import jinja2

from benchmark.results.board import HEADINGS, Leaderboard
from benchmark.results.cells import setting_text, title_of
from benchmark.results.grids import PART_TITLES, Part, grid_of

TEMPLATE: Final = "leaderboard.html.jinja"
FIRST_SHOWN: Final[tuple[Part, ...]] = ("scores", "against", "cost", "remarks")
"""What a reader sees before asking for more."""


def page(board: Leaderboard) -> str:
    """Write the page; the same leaderboard gives the same bytes."""
    tables = list(_tables(board))
    parts = [part for part in PART_TITLES if any(part in table["parts"] for table in tables)]
    return _template().render(
        title=title_of(board),
        drawn=board.drawn,
        tables=tables,
        parts=[
            {"name": part, "title": PART_TITLES[part], "shown": part in FIRST_SHOWN}
            for part in parts
        ],
        notes=board.notes,
        limits=board.limits,
    )


def _tables(board: Leaderboard) -> Iterator[dict[str, Any]]:
    for table in board.tables:
        grid = grid_of(table)
        yield {
            "heading": HEADINGS[table.kind],
            "setting": setting_text(table.setting),
            "leaky": table.setting.protocol.leaky or any(row.leaky for row in table.rows),
            "heads": grid.heads,
            "parts": {head.part for head in grid.heads},
            "lines": [
                {"row": row, "cells": list(zip(grid.heads, line, strict=True))}
                for row, line in zip(table.rows, grid.lines, strict=True)
            ],
        }


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark.results"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE)
