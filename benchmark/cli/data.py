"""`facebench data`: prepare and audit data sets of faces."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from benchmark.cli import crop, fetch
from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, DatasetName, Quiet
from benchmark.cli.output import (
    ExitCode,
    busy,
    err,
    out,
    print_table,
    progress_bar,
    say_error,
    speaking,
)
from benchmark.errors import DataError
from benchmark.reporting.tables import Cell, Column, Table, TableRow
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.audit import Audit
    from benchmark.data.prepare import PrepareResult

app = typer.Typer(no_args_is_help=True, help="Prepare and audit data sets of faces.")
app.command("crop")(crop.crop)

app.command("fetch", epilog=fetch.EXAMPLES)(fetch.fetch)

PREPARE_EXAMPLES = """
Examples:

  facebench data prepare data/UTKFace.tar.gz

  facebench data prepare ~/faces --image-px 64 --name mine-64

  facebench data prepare other.zip --table data/utkface-100/table.csv

  facebench data prepare fairface --layout fairface

  facebench data prepare photos --labels labels.csv --map race:Latina=Others
"""

SAMPLE_EXAMPLES = """
Examples:

  facebench data sample --faces 4000

  facebench data sample --dataset utkface-100 --faces 8000 --name small
"""

AUDIT_EXAMPLES = """
Examples:

  facebench data audit

  facebench data audit --dataset utkface-100 --json
"""


@app.command(epilog=PREPARE_EXAMPLES)
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder, .tar, .tar.gz or .zip with faces named as in UTKFace, or with --labels."
        ),
    ],
    image_px: Annotated[int, typer.Option(help="Side of the packed faces in pixels.")] = 100,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; from SOURCE if left out.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="A table.csv of the same faces, to take clusters and split from."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="A CSV file that tells the labels: file, age, age_group, gender, race."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="How the labels are told: utkface, fairface or table.")
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option("--map", help="What a word of the labels means: race:latino=Others, or none."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Pack the faces of SOURCE, find duplicates and defects, and split them without leaks.

    The labels are in the names, as UTKFace has them, or in tables: any of the three tasks, in the
    columns age (years or a range), age_group, gender and race. What has no class here is left out
    of that task, and counted. Exits with 1 if pictures or rows could not be used; the data set
    then holds the others.
    """
    from benchmark.cli.labels_table import label_findings, print_labels
    from benchmark.data.label_tables import parse_map
    from benchmark.data.prepare import prepare as prepare_faces

    with speaking("data prepare", as_json=as_json) as answer:
        with progress_bar(quiet=quiet or as_json) as bar:
            result = prepare_faces(
                source,
                data_dir,
                image_px=image_px,
                name=name,
                table=table,
                layout=layout,
                labels=labels or [],
                given=parse_map(words or []),
                on_progress=_shown_on(bar),
            )
        answer.data = _prepared_data(result)
        answer.warnings = _warnings(result.faces.manifest["counts"])
        answer.errors = [*_findings(result), *label_findings(result.faces)]
        if not as_json and not quiet:
            _print_prepared(result)
            print_labels(result.faces)
    if answer.errors:
        if not as_json:
            for finding in answer.errors:
                say_error(finding)
        raise typer.Exit(ExitCode.FINDINGS)


def _shown_on(bar: Progress) -> Callable[[str, int, int], None]:
    """Give a callback that shows each stage of the work on a line of its own."""
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    return show


def _prepared_data(result: "PrepareResult") -> dict[str, Any]:
    faces = result.faces
    return {
        "dataset": faces.name,
        "folder": str(faces.folder),
        "is_new": result.is_new,
        "seconds": round(result.seconds, 2),
        **{key: value for key, value in faces.manifest.items() if key not in ("schema", "name")},
        "quarantine": faces.quarantine().to_dict("records"),
    }


def _warnings(counts: dict[str, Any]) -> list[str]:
    warnings = []
    if counts["converted_modes"]:
        modes = ", ".join(f"{n} {mode}" for mode, n in counts["converted_modes"].items())
        warnings.append(f"Pictures that were not RGB were converted to it: {modes}.")
    if counts["not_square"]:
        warnings.append(
            f"{counts['not_square']:,} pictures are not square; their middle was taken."
        )
    if counts["enlarged"]:
        warnings.append(f"{counts['enlarged']:,} pictures are smaller than asked for; enlarged.")
    return warnings


def _findings(result: "PrepareResult") -> list[DataError]:
    if result.n_findings == 0:
        return []
    quarantine = result.faces.quarantine()
    first = quarantine[quarantine["kind"] == "picture"].iloc[0]
    return [
        DataError(
            f"{result.n_findings} pictures could not be used and were left out; "
            f"{first['file']}: {first['reason']}",
            source=str(result.faces.folder / "quarantine.csv"),
            fix="The data set is complete without them; mend the source and prepare it under "
            "another --name to have them too",
        )
    ]


def _print_prepared(result: "PrepareResult") -> None:
    from benchmark.data.duplicates import near_in_words

    faces, counts = result.faces, result.faces.manifest["counts"]
    if not result.is_new:
        out.print(
            f"[bold]{faces.name}[/] is there already, from the same source with the same options: "
            f"nothing to do ({counts['usable']:,} faces in {escape(str(faces.folder))}).",
            soft_wrap=True,
        )
        return
    same, near = counts["identical"], faces.manifest["near_duplicates"]
    lines: list[tuple[str, str]] = []
    lines.append(("image files", f"{counts['image_files']:,}"))
    lines.append(("usable faces", f"{counts['usable']:,}"))
    by_name = "labels" not in faces.manifest
    lines.append(
        (
            "no labels in the name" if by_name else "no labels in the table",
            f"{counts['quarantined_names']:,}",
        )
    )
    lines.append(("pictures that cannot be used", f"{counts['quarantined_pictures']:,}"))
    lines.append(("files that are no pictures", f"{counts['not_pictures']:,}"))
    lines.append(("groups of identical files", f"{same['groups']:,}, holding {same['files']:,}"))
    lines.append(("  with conflicting labels", _conflicts(same)))
    lines.append(("near-duplicates", near_in_words(near)))
    lines.append(("faces with a place in a split", f"{counts['placed']:,}"))
    parts = (f"{name} {counts[name]:,}" for name in ("train", "val", "test"))
    lines.append((f"  {faces.manifest['split_version']}", " · ".join(parts)))
    lines.append(("split digest", faces.split_digest[:16]))
    where = escape(str(faces.folder))
    out.print(f"[bold]{faces.name}[/], prepared in {result.seconds:.1f} s: {where}", soft_wrap=True)
    print_table(Table.of(["", Column("", left=True, fold=True)], lines))


def _conflicts(same: dict[str, int]) -> str:
    by_label = (
        f"{label.replace('_', ' ')} {same[f'groups_in_conflict_{label}']:,}"
        for label in ("age", "age_group", "gender", "race")
    )
    return f"{same['groups_in_conflict']:,} ({', '.join(by_label)})"


@app.command(epilog=SAMPLE_EXAMPLES)
def sample(
    n_faces: Annotated[int, typer.Option("--faces", help="About how many faces to draw.")],
    dataset: DatasetName = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the sample; DATASET-N if left out.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Draw a smaller data set from a prepared one: clusters whole, each face in its part.

    For trying what takes long on all faces; its numbers are a data set's of their own.
    """
    from benchmark.data.sample import choose_dataset, draw_sample, pairs_within_clusters

    with speaking("data sample", as_json=as_json) as answer:
        faces = choose_dataset(data_dir, dataset)
        with busy("sampling", quiet=as_json):
            drawn = draw_sample(faces, n_faces, name or f"{faces.name}-{n_faces}")
        counts = drawn.manifest["counts"]
        pairs = (pairs_within_clusters(drawn), pairs_within_clusters(faces))
        answer.data = {
            "name": drawn.name,
            "folder": str(drawn.folder),
            "of": faces.name,
            "counts": counts,
            "pairs_within_clusters": pairs[0],
            "pairs_within_clusters_of_all": pairs[1],
        }
        if not as_json:
            out.print(
                f"[bold]{drawn.name}[/]: {len(drawn.table):,} of {len(faces.table):,} faces in "
                f"{counts['clusters']:,} whole clusters, with {pairs[0]:,} of {pairs[1]:,} pairs "
                f"of the same picture\ntrain {counts['train']:,}, val {counts['val']:,}, test "
                f"{counts['test']:,}, as they were · {drawn.folder}",
                soft_wrap=True,
            )


@app.command(epilog=AUDIT_EXAMPLES)
def audit(
    dataset: DatasetName = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Count the faces of each part of the split, what leaks, and which labels are in conflict.

    Exits with 1 if anything is found that should not be.
    """
    from benchmark.cli.labels_table import print_labels
    from benchmark.comparison.references import label_noise
    from benchmark.data.audit import audit as audit_faces
    from benchmark.data.sample import choose_dataset

    with speaking("data audit", as_json=as_json) as answer:
        with busy("auditing", quiet=as_json):
            result = audit_faces(choose_dataset(data_dir, dataset))
            noise = label_noise(result.faces.table)
        known = noise.astype(object).where(noise.notna(), None)
        answer.data = result.as_dict() | {"label_noise": known.to_dict("records")}
        answer.errors = [DataError(finding) for finding in result.findings]
        if not as_json:
            _print_audit(result)
            _print_noise(noise)
            print_labels(result.faces)
    if result.findings:
        raise typer.Exit(ExitCode.FINDINGS)


def _print_audit(result: "Audit") -> None:
    from benchmark.data.duplicates import near_in_words

    faces, counts = result.faces, result.faces.manifest["counts"]
    kind = "drawn faces" if faces.drawn else "faces"
    out.print(
        f"[bold]{faces.name}[/]: {counts['usable']:,} {kind} of {faces.image_px} px, "
        f"{counts['placed']:,} in the split {faces.manifest['split_version']}"
    )
    for part in ("train", "val", "test"):
        out.print()
        print_table(_part_table(result.counts[result.counts["part"] == part], part))
    shared = [(s, *(f"{n:,}" for n in c.values())) for s, c in result.overlap_counts().items()]
    headings = ["split", "equal bytes", "cluster", "file name"]
    out.print()
    print_table(Table.of(headings, shared, "Shared between parts"))
    left_out = [(str(k), str(r), f"{n:,}") for k, r, n in result.left_out.itertuples(index=False)]
    reason = Column("reason", left=True, fold=True)
    out.print()
    print_table(Table.of(["kind", reason, "files"], left_out, "Left out, and why"))
    same, near = result.duplicates, faces.manifest["near_duplicates"]
    out.print(
        f"Identical files: {same['groups']:,} groups holding {same['files']:,} files; labels in "
        f"conflict in {_conflicts(same)}; {same['groups_in_conflict_any_task']:,} groups disagree "
        "on a task and have no place."
    )
    out.print(
        f"Near-duplicates: {near_in_words(near)}; {counts['clusters_of_several']:,} clusters hold "
        f"more than one face, the largest {counts['largest_cluster']:,}. No cluster is divided."
    )
    for finding in result.findings:
        err.print(f"[bold red]Found:[/] {escape(finding)}", soft_wrap=True)
    if not result.findings:
        out.print("[green]Nothing found that should not be.[/]")


def _print_noise(noise: "pd.DataFrame") -> None:
    """Print how often labels of one photograph disagree, and the accuracy within reach."""
    from benchmark.comparison.references import ASSUMPTIONS

    known = noise[noise["disagree"].notna()]
    if known.empty:
        return
    rows = [
        (
            TASK_TITLES[row["task"]],
            row["files"],
            f"{row['n_photographs']:,}",
            f"{row['n_pairs']:,}",
            _rate(row, "disagree", "low", "high"),
            _rate(row, "ceiling", "ceiling_low", "ceiling_high"),
            _rate(row, "independent_ceiling", "independent_low", "independent_high"),
        )
        for row in known.to_dict("records")
    ]
    headings = ("task", "files", "photos", "pairs", "disagree", "1 − d/2", "1 − e")
    print_table(Table.of(headings, rows, "Labels of one photograph, percent"))
    out.print(ASSUMPTIONS)


def _rate(row: dict[Any, Any], *names: str) -> Cell:
    rate, low, high = (100 * float(row[name]) for name in names)
    return Cell(f"{rate:.1f}", f"{low:.1f}–{high:.1f}")


def _part_table(counts: "pd.DataFrame", part: str) -> Table:
    """Lay out one part: age group and gender down, race across, sums at the ends.

    Of faces that lack labels: task by task, with those that have none.
    """
    title = f"{part}: {int(counts['n'].sum()):,} faces"
    if (counts[list(TASKS)] == MISSING).any(axis=1).any():
        lines = [
            (TASK_TITLES[task], name, f"{int(n_by_label.get(label, 0)):,}")
            for task in TASKS
            for n_by_label in [counts.groupby(task)["n"].sum()]
            for label, name in [*enumerate(CLASS_NAMES[task]), (MISSING, "not stated")]
        ]
        return Table.of(["task", "class", "faces"], lines, title)
    races = range(len(CLASS_NAMES["race"]))
    table = counts.groupby(list(TASKS))["n"].sum()
    rows = []
    for age_group, age_name in enumerate(CLASS_NAMES["age_group"]):
        for gender, gender_name in enumerate(CLASS_NAMES["gender"]):
            found = [int(table.get((age_group, gender, race), 0)) for race in races]
            rows.append((age_name, gender_name, *(f"{n:,}" for n in (*found, sum(found)))))
    by_race = counts.groupby("race")["n"].sum()
    sums = [int(by_race.get(race, 0)) for race in races]
    total = TableRow(
        tuple(map(Cell, ("all", "", *(f"{n:,}" for n in (*sums, sum(sums)))))), status="total"
    )
    return Table.of(["age group", "gender", *CLASS_NAMES["race"], "all"], [*rows, total], title)
