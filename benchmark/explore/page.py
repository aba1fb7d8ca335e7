"""One page on who is in a data set, complete in itself, and its figures as PNGs beside it.

Text goes through Jinja's escaping; of what is not escaped, the figures, every word is ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark import __version__
from benchmark.explore.figures import as_svg, figures_of, write_small_png
from benchmark.explore.numbers import Explored
from benchmark.explore.sections import Section, facts, lead, notes, sections
from benchmark.files import write_text

PAGE_FILE: Final = "index.html"


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    svg: Markup
    caption: str


def write_exploration(explored: Explored, folder: Path) -> list[Path]:
    """Write the page and its PNGs into `folder`; give their paths, the page first."""
    folder.mkdir(parents=True, exist_ok=True)  # Before the drawing: where it fails, at once.
    figures = figures_of(explored)
    svgs = {name: Markup(as_svg(figure, name)) for name, figure in figures.items()}
    written = [folder / PAGE_FILE]
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        write_small_png(path, figure)
        written.append(path)
    write_text(written[0], page(explored, svgs))
    return written


def page(explored: Explored, svgs: dict[str, Markup]) -> str:
    """Lay out the page; svgs: by the names of benchmark.explore.figures."""
    environment = Environment(
        loader=PackageLoader("benchmark.explore"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    manifest = explored.faces.manifest
    return environment.get_template("explore.html").render(
        name=explored.faces.name,
        lead=lead(explored),
        notes=notes(explored),
        facts=facts(explored),
        sections=[_shown(section, svgs) for section in sections(explored)],
        command=f"facebench data explore --dataset {explored.faces.name}",
        version=__version__,
        split_version=manifest["split_version"],
        split_digest=explored.faces.split_digest[:16],
        pixel_digest=explored.faces.pixel_digest[:16],
    )


def _shown(section: Section, svgs: dict[str, Markup]) -> dict[str, Any]:
    """Put the figures that there are into a section."""
    pictures = [
        Picture(svgs[name], caption) for name, caption in section.pictures.items() if name in svgs
    ]
    return {**vars(section), "pictures": pictures}
