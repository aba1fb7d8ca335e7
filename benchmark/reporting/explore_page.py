"""The page on a data set: sections and file.

One page on who is in a data set, complete in itself, and its figures as PNGs beside it.

Text goes through Jinja's escaping; of what is not escaped, the figures, every word is ours.

What the page on a data set says, section by section: sentences, captions and tables of numbers.

How it looks is for the template; what is not labelled is said, and its section left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from benchmark.data.splits import PARTS
from benchmark.files import write_text
from benchmark.reporting.explore_figures import as_svg, figures_of, write_small_png
from benchmark.reporting.explore_numbers import (
    DENSITY_BANDWIDTH_YEARS,
    DIGIT_AGES,
    EDGES,
    OLDEST,
    WHIPPLE_AGES,
    Explored,
    quantile_of,
)
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName

DRAWN_NOTE: Final = (
    "DRAWN FACES: these are emblems drawn by a program. Nothing here says anything about people."
)
PERCEIVED_NOTE: Final = (
    "Labels are perceived age, gender and race as somebody or some model put them down: they are "
    "noisy, and they are not how people describe themselves."
)
PART_TITLES: Final = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Grid:
    """A table of the page; the first `n_text` columns are words, the others numbers."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    folded: bool = True


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    heading: str
    paragraphs: Sequence[str] = ()
    pictures: dict[str, str] = field(default_factory=dict)
    """By the name of a figure its caption."""
    tables: Sequence[Grid] = ()


def share(part: float, whole: float) -> str:
    """Write a part of a whole as percent."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def lead(explored: Explored) -> str:
    """Say in a sentence or two what data set this is."""
    faces, counts = explored.faces, explored.faces.manifest["counts"]
    source = faces.manifest["source"]
    kind = "drawn faces" if faces.drawn else "faces"
    utkface = "utkface" in faces.name and not faces.drawn
    licence = f" UTKFace ({WEBSITE}) is for {LICENCE}." if utkface else ""
    return (
        f"{counts['usable']:,} usable {kind} of {counts['image_files']:,} image files from "
        f"{source}, packed at {faces.image_px} px; {counts['placed']:,} have a place in the split "
        f"{faces.manifest['split_version']}.{licence}"
    )


def notes(explored: Explored) -> list[str]:
    """Say what must be known before a number is read."""
    labels = explored.faces.manifest.get("labels")
    told = [] if labels is None else [*gaps(labels, explored.n_faces), *label_notes(labels)]
    return [DRAWN_NOTE if explored.faces.drawn else PERCEIVED_NOTE, *told]


def facts(explored: Explored) -> list[tuple[str, str]]:
    """Give the few numbers that stand first: number, and what it counts."""
    found = [(f"{explored.n_faces:,}", "usable faces")]
    if explored.n_aged:
        median = quantile_of(explored.ages, 0.5)
        found.append((f"{median}", "median age in years"))
        on_edge = int(explored.edges["n"].sum())
        found.append((share(on_edge, explored.n_aged), "on an edge between age groups"))
    if explored.has("gender"):
        women = int(explored.counts("gender")[1])
        found.append((share(women, int(explored.counts("gender").sum())), "female"))
    same = explored.duplicates.identical
    found.append((f"{same['groups']:,}", "groups of equal files"))
    found.append((f"{same['groups_in_conflict']:,}", "of these with labels in conflict"))
    return found


def sections(explored: Explored) -> list[Section]:
    """Give every section that the labels allow, in the order of the page."""
    found = [_who(explored)]
    if explored.n_aged:
        found += [_ages(explored), _heaping(explored), _edges(explored)]
    if explored.has("age_group") and (explored.has("gender") or explored.has("race")):
        found.append(_age_groups(explored))
    if explored.gender_race["n"].sum():
        found.append(_gender_race(explored))
    if explored.n_aged and explored.has("race"):
        found.append(_ages_by_race(explored))
    found += [_parts(explored), _duplicates(explored), _left_out(explored)]
    if explored.faces.manifest.get("labels"):
        found.append(_words(explored))
    return found


def _who(explored: Explored) -> Section:
    rows = []
    for task in TASKS:
        counts = explored.counts(task)
        for label, n in enumerate(counts.tolist()):
            heading = TASK_TITLES[task] if label == 0 else ""
            rows.append((heading, CLASS_NAMES[task][label], f"{n:,}", share(n, counts.sum())))
        if explored.n_without(task):
            rows.append(("", "not told", f"{explored.n_without(task):,}", ""))
    caption = "Faces by gender, race and age group, of all usable faces that have the label."
    table = Grid("The same as a table", ("", "class", "faces", "share"), rows, n_text=2)
    return Section("who", "Who is in it", pictures={"who": caption}, tables=[table])


def _ages(explored: Explored) -> Section:
    ages = explored.ages
    low, middle, high = (quantile_of(ages, level) for level in (0.25, 0.5, 0.75))
    known = np.flatnonzero(ages)
    sentence = (
        f"From {known[0]} to {known[-1]} years; half of the faces are {low} to {high}, the median "
        f"is {middle}. The commonest age is {int(ages.argmax())}, of {int(ages.max()):,} faces "
        f"({share(ages.max(), ages.sum())})."
    )
    table = Grid(
        "Faces by age in years",
        ("age", "faces", "share"),
        [(str(age), f"{ages[age]:,}", share(ages[age], ages.sum())) for age in known],
    )
    caption = "Faces by age in years, in the colours of the five age groups, with their counts."
    return Section("ages", "Ages", [sentence], {"ages": caption}, [table])


def _heaping(explored: Explored) -> Section:
    heaping = explored.heaping
    assert heaping is not None, "only where ages are told"
    rounded = heaping.digit_shares[0] + heaping.digit_shares[5]
    sentence = (
        "Labels heap where people, or models, round: of the faces of "
        f"{DIGIT_AGES[0]} to {DIGIT_AGES[-1]} years {100 * rounded:.1f} % have an age that ends in "
        f"0 or 5, where about 20 % would. Whipple's index over {WHIPPLE_AGES[0]} to "
        f"{WHIPPLE_AGES[-1]} years is {heaping.whipple:.0f}: 100 is no preference, 500 nothing but "
        "such ages. A mistake of a year or two is no surprise then, and near an edge between age "
        "groups it changes the class."
    )
    rows = [
        (str(age), f"{n:,}", f"{100 * part:.1f} %", f"{times:.1f}")
        for age, n, part, times in heaping.peaks.head(12).itertuples(index=False)
    ]
    table = Grid(
        "Ages labelled more often than the two on either side, on average",
        ("age", "faces", "share", "times as often"),
        rows,
    )
    caption = (
        "Left: shares of last digits; the dashed line is a tenth. Right: the ages that stand out "
        "most from the ages around them."
    )
    return Section("heaping", "Label heaping", [sentence], {"heaping": caption}, [table])


def _edges(explored: Explored) -> Section:
    edges = explored.edges
    on_edge, above = int(edges["n"].sum()), int(edges["n_next"].sum())
    sentence = (
        f"{on_edge:,} faces ({share(on_edge, explored.n_aged)}) are labelled with the last age of "
        f"a group, and {above:,} ({share(above, explored.n_aged)}) with the first of the next: for "
        "these a year is the difference between right and wrong, whatever a network sees. Another "
        "rule for the edges would be another benchmark."
    )
    names = CLASS_NAMES["age_group"]
    rows = [
        (
            f"{edge} years",
            f"{names[place]}, not {names[place + 1]}",
            f"{explored.ages[edge]:,}",
            share(explored.ages[edge], explored.n_aged),
            f"{explored.ages[edge + 1]:,}",
            share(explored.ages[edge + 1], explored.n_aged),
        )
        for place, edge in enumerate(EDGES)
    ]
    rows.append(("all", "", f"{on_edge:,}", share(on_edge, explored.n_aged), f"{above:,}",
                 share(above, explored.n_aged)))  # fmt: skip
    table = Grid(
        "Faces on each edge, and a year above",
        ("edge", "counted as", "on it", "share", "a year above", "share"),
        rows,
        n_text=2,
        folded=False,
    )
    caption = (
        "The ages about each edge; the last age of the lower group stands out. Its share of all "
        "faces is in the title."
    )
    return Section("edges", "Bin edges", [sentence], {"bin_edges": caption}, [table])


def _crossed(explored: Explored, task: TaskName, other: TaskName) -> Grid:
    counts = explored.crossed(task, other)
    rows = [
        (CLASS_NAMES[task][label], *(f"{n:,}" for n in (*row, sum(row))))
        for label, row in enumerate(counts.tolist())
    ]
    rows.append(("all", *(f"{n:,}" for n in (*counts.sum(axis=0), counts.sum()))))
    title = f"Faces by {TASK_TITLES[task]} and {TASK_TITLES[other]}"
    return Grid(title, (TASK_TITLES[task], *CLASS_NAMES[other], "all"), rows)


def _age_groups(explored: Explored) -> Section:
    others = explored.tasks_of("gender", "race")
    sentence = (
        "Where a group of people is younger than another, a network that reads the young better "
        "reads that group better too: compare groups of people within an age group."
    )
    caption = "Share of each age group within each gender and race, in percent; counts in brackets."
    tables = [_crossed(explored, task, "age_group") for task in others]
    names = " and ".join(TASK_TITLES[task] for task in others)
    return Section(
        "age-groups", f"Age groups by {names}", [sentence], {"age_groups": caption}, tables
    )


def _gender_race(explored: Explored) -> Section:
    caption = (
        "Gender within, race without. Each slice is drawn and named by one and the same row of the "
        "table: no order of labels can name a slice after another."
    )
    return Section(
        "gender-race",
        "Gender × race",
        pictures={"gender_race": caption},
        tables=[_crossed(explored, "gender", "race")],
    )


def _ages_by_race(explored: Explored) -> Section:
    rows: list[Sequence[str]] = []
    for race, name in enumerate(CLASS_NAMES["race"]):
        ages = explored.ages_of(race)
        if not ages.sum():
            rows.append((name, "0", "–", "–", "–", "–"))
            continue
        mean = float((ages * np.arange(OLDEST + 1)).sum() / ages.sum())
        quartiles = [str(quantile_of(ages, level)) for level in (0.25, 0.5, 0.75)]
        rows.append((name, f"{ages.sum():,}", *quartiles, f"{mean:.1f}"))
    table = Grid(
        "Ages by race",
        ("race", "faces", "a quarter up to", "half up to", "three quarters up to", "mean"),
        rows,
        folded=False,
    )
    caption = (
        f"Density of age by race, smoothed by a Gaussian of {DENSITY_BANDWIDTH_YEARS:g} years; the "
        "middle half is darker, the median a line, all faces together dotted."
    )
    return Section("ages-by-race", "Ages by race", (), {"ages_by_race": caption}, [table])


def _parts(explored: Explored) -> Section:
    sizes = explored.part_sizes()
    shifts = [
        f"{TASK_TITLES[task]} {100 * explored.largest_shift(task):.1f}"
        for task in TASKS
        if explored.has(task) and not np.isnan(explored.largest_shift(task))
    ]
    sentence = (
        ", ".join(f"{sizes[part]:,} {PART_TITLES[part]}" for part in PARTS)
        + " faces. Clusters are never divided; the most that a class's share in a part is off its "
        f"share in all, in points: {', '.join(shifts) or 'none can be told'}."
    )
    rows = []
    for task in TASKS:
        by_part = explored.part_counts(task)
        totals = by_part.sum(axis=1)
        for label, name in enumerate(CLASS_NAMES[task]):
            cells = [
                f"{n:,} ({share(n, total)})"
                for n, total in zip(by_part[:, label].tolist(), totals.tolist(), strict=True)
            ]
            rows.append((TASK_TITLES[task] if label == 0 else "", name, *cells))
    headings = ("", "class", *(PART_TITLES[part] for part in PARTS))
    table = Grid("Faces by part and class", headings, rows, n_text=2)
    caption = "Shares of the classes of each task in the three parts, in percent."
    return Section("parts", "Per part of the split", [sentence], {"parts": caption}, [table])


def _duplicates(explored: Explored) -> Section:
    twice, counts = explored.duplicates, explored.faces.manifest["counts"]
    same, near = twice.identical, explored.faces.manifest["near_duplicates"]
    pairs = f"Near-duplicates among files of different bytes: {near_in_words(near)}."
    sentences = [
        f"{same['groups']:,} groups of files are equal byte by byte, {same['files']:,} files in "
        f"all; in {same['groups_in_conflict']:,} of them the same file is labelled differently. "
        f"{same['groups_in_conflict_any_task']:,} disagree on a task: {counts['label_conflicts']:,}"
        f" files without a place in any part. {counts['copies']:,} further copies have none either."
        f" {pairs}"
    ]
    if same["groups"]:
        noise = ", ".join(
            f"{TASK_TITLES[task]} {share(same[f'groups_in_conflict_{task}'], same['groups'])}"
            for task in TASKS
        )
        sentences.append(
            f"How noisy the labels are, where it can be seen: of groups of equal files, {noise} "
            "disagree. It is no rate for all faces: copies whose labels agreed may have been taken "
            "out before."
        )
    tables = [
        Grid(
            "Which classes one and the same file is labelled with",
            ("task", "one", "another", "groups"),
            [
                (TASK_TITLES[task], first, second, f"{n:,}")
                for task, first, second, n in twice.disagreements.itertuples(index=False)
            ],
            n_text=3,
        ),
        Grid(
            "Clusters of the same picture, by size",
            ("faces in a cluster", "clusters", "faces"),
            [
                (str(size), f"{clusters:,}", f"{n_faces:,}")
                for size, clusters, n_faces in twice.cluster_sizes.itertuples(index=False)
            ],
        ),
    ]
    caption = (
        "Left: groups of equal files, and how many disagree on what. Right: of those that disagree "
        "on the age, the years between its lowest and its highest label."
    )
    return Section(
        "duplicates",
        "Duplicates and conflicts",
        sentences,
        {"duplicates": caption},
        [table for table in tables if table.rows],
    )


def _left_out(explored: Explored) -> Section:
    rows: list[tuple[Any, ...]] = [
        (kind, reason, f"{n:,}") for kind, reason, n in explored.left_out.itertuples(index=False)
    ]
    if not rows:
        return Section("left-out", "What was left out", ["Nothing."])
    table = Grid("By reason", ("kind", "reason", "files"), rows, n_text=2, folded=False)
    sentence = (
        "Files in quarantine, which are in no table, and faces that have no place in the split."
    )
    return Section("left-out", "What was left out", [sentence], tables=[table])


def _words(explored: Explored) -> Section:
    """Say how the words of the table of labels were read."""
    labels = explored.faces.manifest["labels"]
    files = ", ".join(file["name"] for file in labels["files"])
    rows = [
        (
            "" if place else column,
            entry["word"] or "(empty)",
            entry["class"] or f"none: {entry['why']}",
            f"{entry['rows']:,}",
        )
        for column, entries in labels["mapping"].items()
        for place, entry in enumerate(entries)
    ]
    n_words = len(unmapped(labels))
    sentence = (
        f"Labels are from {files}, layout {labels['layout']}. {n_words} of its words have no class "
        "here: what a face is labelled with such a word is left out of that task."
    )
    table = Grid(
        "What the words mean here", ("column", "word", "class here", "rows"), rows, 3, folded=False
    )
    return Section("words", "How the labels were read", [sentence], tables=[table])


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
    """Lay out the page; svgs: by the names of benchmark.reporting.explore_figures."""
    environment = Environment(
        loader=PackageLoader("benchmark.reporting"),
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
