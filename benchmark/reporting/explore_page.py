"""The page on the composition of a data set: one file, and its figures as PNGs beside it.

Its sentences are in templates/explore.html; text is escaped by Jinja, figures are our own.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark import __version__
from benchmark.data.duplicates import near_in_words
from benchmark.data.labelled import gaps, unmapped
from benchmark.data.labelled import notes as label_notes
from benchmark.data.labels import LICENCE, WEBSITE
from benchmark.evaluation.figures import as_svg, write_png
from benchmark.files import check_outputs, write_text
from benchmark.reporting.explore import (
    DENSITY_BANDWIDTH_YEARS,
    DIGIT_AGES,
    OLDEST,
    WHIPPLE_AGES,
    Explored,
    figures_of,
    quantile_of,
)
from benchmark.tasks import CLASS_NAMES, TASK_TITLES

PAGE_FILE: Final = "index.html"
SYNTHETIC_NOTE: Final = (
    "SYNTHETIC FACES: emblems drawn by a program. Nothing here says anything about people."
)
PERCEIVED_NOTE: Final = (
    "Labels are perceived age, gender and race as somebody or some model put them down: they are "
    "noisy, and they are not how people describe themselves."
)


def share(part: float, whole: float) -> str:
    """Write a part of a whole as percent."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def lead(explored: Explored) -> str:
    """Say in a sentence or two what data set this is."""
    faces, manifest = explored.faces, explored.faces.manifest
    counts, kind = manifest["counts"], "synthetic faces" if faces.drawn else "faces"
    is_utkface = "utkface" in faces.name and not faces.drawn
    licence = f" UTKFace ({WEBSITE}) is for {LICENCE}." if is_utkface else ""
    return (
        f"{counts['usable']:,} usable {kind} of {counts['image_files']:,} image files from "
        f"{manifest['source']}, packed at {faces.image_px} px; {counts['placed']:,} have a place "
        f"in the split {manifest['split_version']}.{licence}"
    )


def notes(explored: Explored) -> list[str]:
    """Say what must be known before a number is read."""
    labels, n_faces = explored.numbers["labels"], explored.numbers["faces"]
    said = [] if labels is None else [*gaps(labels, n_faces), *label_notes(labels)]
    return [SYNTHETIC_NOTE if explored.faces.drawn else PERCEIVED_NOTE, *said]


def facts(explored: Explored) -> list[tuple[str, str]]:
    """Give the few numbers that stand first: number, and what it counts."""
    numbers, n_aged = explored.numbers, int(explored.ages.sum())
    found = [(f"{numbers['faces']:,}", "usable faces")]
    if n_aged:
        on_edge = sum(edge["n"] for edge in numbers["bin_edges"])
        found.append((f"{quantile_of(explored.ages, 0.5)}", "median age in years"))
        found.append((share(on_edge, n_aged), "on an edge between age groups"))
    if explored.has("gender"):
        genders = numbers["counts"]["gender"]
        found.append((share(genders["female"], sum(genders.values())), "female"))
    found.append((f"{numbers['duplicates']['groups']:,}", "groups of equal files"))
    in_conflict = numbers["duplicates"]["groups_in_conflict"]
    found.append((f"{in_conflict:,}", "of these with labels in conflict"))
    return found


def write_exploration(explored: Explored, folder: Path, overwrite: bool = True) -> list[Path]:
    """Write the page and its PNGs into `folder`; give their paths, the page first."""
    folder.mkdir(parents=True, exist_ok=True)  # Before the drawing: where it fails, at once.
    figures = figures_of(explored)
    files = [folder / PAGE_FILE, *(folder / f"{name}.png" for name in figures)]
    check_outputs(files, overwrite=overwrite)
    svgs = {name: Markup(as_svg(figure, name)) for name, figure in figures.items()}
    for name, figure in figures.items():
        write_png(folder / f"{name}.png", figure)
    write_text(folder / PAGE_FILE, page(explored, svgs))
    return files


def page(explored: Explored, svgs: dict[str, Markup]) -> str:
    """Lay out the page; svgs: by the names that `figures_of` gives figures."""
    faces, ages, manifest = explored.faces, explored.ages, explored.faces.manifest
    environment = Environment(
        loader=PackageLoader("benchmark.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = "{:,}".format
    environment.globals["share"] = share

    def quartiles(counts: Any) -> list[int]:
        return [quantile_of(counts, level) for level in (0.25, 0.5, 0.75)]

    by_race = {race: explored.ages_of(race) for race in CLASS_NAMES["race"]}
    years = np.arange(OLDEST + 1)
    parts = {task: explored.crossed("part", task) for task in TASK_TITLES if explored.has(task)}
    shifts = {
        task: (table.div(table.sum(axis=1), axis=0) - table.sum() / table.to_numpy().sum())
        for task, table in parts.items()
        if table.sum(axis=1).all()
    }
    sizes = faces.table["cluster"].value_counts()
    return environment.get_template("explore.html").render(
        name=faces.name,
        lead=lead(explored),
        notes=notes(explored),
        facts=facts(explored),
        numbers=explored.numbers,
        counts=manifest["counts"],
        near=near_in_words(manifest["near_duplicates"]),
        has=explored.has,
        svgs=svgs,
        titles=TASK_TITLES,
        classes=CLASS_NAMES,
        ages=ages,
        quartiles=quartiles(ages) if ages.sum() else [],
        races=[
            (name, its.sum(), quartiles(its), (its * years).sum() / its.sum())
            for name, its in by_race.items()
            if its.sum()
        ],
        crossed={
            pair: explored.crossed(*pair)
            for pair in (("gender", "age_group"), ("race", "age_group"), ("gender", "race"))
            if explored.has(*pair)
        },
        parts=parts,
        shifts={task: float(table.abs().max(axis=None)) for task, table in shifts.items()},
        clusters=sizes[sizes > 1].value_counts().sort_index().items(),
        n_unmapped=len(unmapped(manifest["labels"])) if manifest.get("labels") else 0,
        digit_ages=DIGIT_AGES,
        whipple_ages=WHIPPLE_AGES,
        bandwidth=DENSITY_BANDWIDTH_YEARS,
        version=__version__,
        split_version=manifest["split_version"],
        split_digest=faces.split_digest[:16],
        pixel_digest=faces.pixel_digest[:16],
    )
