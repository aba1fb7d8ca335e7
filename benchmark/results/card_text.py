"""A card's text: Markdown that no name can break, and the same as one HTML page of its own."""

import html
from collections.abc import Iterable, Sequence
from typing import Any, Final

from markdown_it import MarkdownIt

NOTHING: Final = "–"
SPECIAL: Final = "\\`*_{}[]#|~!"
"""What Markdown, or a table in it, would read as more than a letter, and a \\ before it mends."""
ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""Not every reader of Markdown takes \\< as a letter: MLflow's does not."""

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8886; text-align: left; }
td[style*=right], th[style*=right] { font-variant-numeric: tabular-nums; white-space: nowrap; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: .4rem solid #c60; }
code { overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; } }
"""


def plain(text: Any) -> str:
    """Write any text so that Markdown shows it as it is, on one line."""
    words = " ".join(str(text).split())
    return "".join(
        f"\\{letter}" if letter in SPECIAL else ENTITIES.get(letter, letter) for letter in words
    )


def code(text: Any) -> str:
    """Write a name or digest as code, in a table or out of one."""
    words = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{words}`" if words else NOTHING


def rate(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Write a rate in [0, 1] as percent, with its interval where it has one."""
    if value is None or value != value:
        return NOTHING
    if low is None or high is None or low != low or high != high:
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, n_left: int = 1) -> list[str]:
    """Lay out a table, its first `n_left` columns to the left and the others to the right."""
    lines = [
        f"| {' | '.join(headings)} |",
        "|"
        + "|".join("---" if column < n_left else "--:" for column in range(len(headings)))
        + "|",
    ]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def page(markdown: str, title: str) -> str:
    """Turn a card into one HTML page that needs nothing else; HTML within the text stays text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}</main></body></html>\n"
    )
