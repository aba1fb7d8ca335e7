"""`facebench data`: fetch, prepare, sample and audit data sets of faces."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli import crop
from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, DatasetName, Quiet
from benchmark.cli.output import (
    ExitCode,
    busy,
    err,
    out,
    print_table,
    say_error,
    speaking,
    watching,
)
from benchmark.errors import BenchmarkError, DataError
from benchmark.reporting.tables import Cell, Column, Table, TableRow
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.audit import Audit
    from benchmark.data.prepare import PrepareResult

app = typer.Typer(no_args_is_help=True, help="Prepare and audit data sets of faces.")
app.command("crop")(crop.crop)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A published data set: utkface.")],
    accept: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its licence and accept it.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show the licence of a published data set and, once it is accepted, fetch its archive.

    What was interrupted is resumed. Needs the extra: pip install 'facebench\\[fetch]'.

    Examples:
      facebench data fetch utkface
      facebench data fetch utkface --accept-licence --quiet
    """
    with speaking("data fetch", as_json=as_json) as answer:
        from benchmark.data.fetch import NAME, TERMS
        from benchmark.data.fetch import fetch as fetch_published

        if name != NAME:
            raise DataError(f"no published data set is called {name!r}", allowed=NAME)
        for line in TERMS:
            err.print(escape(line), soft_wrap=True)
        asked = "Do you accept this?"
        if not accept and not (
            sys.stdin.isatty() and typer.confirm(asked, default=False, err=True)
        ):
            raise DataError(
                f"the licence of {name} was not accepted",
                fix=f"Read it above; `facebench data fetch {name} --accept-licence` accepts it",
            )
        fetched = fetch_published(data_dir, progress=not (quiet or as_json))
        answer.data = {
            "file": str(fetched.path),
            "is_new": fetched.is_new,
            "faces": fetched.n_faces,
            "sha256": fetched.sha256,
            "terms": list(TERMS),
        }
        if not as_json and not quiet:
            came = "fetched" if fetched.is_new else "there already"
            out.print(
                f"[bold]{escape(str(fetched.path))}[/] {came}: names of {fetched.n_faces:,} faces, "
                f"sha256 {fetched.sha256[:16]}\nNext: "
                f"facebench data prepare {escape(str(fetched.path))}",
                soft_wrap=True,
            )


@app.command()
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
        typer.Option(help="A CSV file with the labels: file, age, age_group, gender, race."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Where the labels are: utkface, fairface or table.")
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

    Examples:
      facebench data prepare data/UTKFace.tar.gz
      facebench data prepare ~/faces --image-px 64 --name mine-64
      facebench data prepare other.zip --table data/utkface-100/table.csv
      facebench data prepare fairface --layout fairface
      facebench data prepare photos --labels labels.csv --map race:Latina=Others
    """
    from benchmark.cli.labels_table import label_findings, print_labels
    from benchmark.data.label_tables import parse_map
    from benchmark.data.prepare import prepare as prepare_faces

    with speaking("data prepare", as_json=as_json) as answer:
        with watching(quiet=quiet or as_json) as watch:
            result = prepare_faces(
                source,
                data_dir,
                image_px=image_px,
                name=name,
                table=table,
                layout=layout,
                labels=labels or [],
                given=parse_map(words or []),
                on_progress=watch,
            )
        faces, counts = result.faces, result.faces.manifest["counts"]
        rejected = faces.rejected()
        answer.data = {
            "dataset": faces.name,
            "folder": str(faces.folder),
            "is_new": result.is_new,
            "seconds": round(result.seconds, 2),
            **{key: faces.manifest[key] for key in faces.manifest if key not in ("schema", "name")},
            "quarantine": rejected.to_dict("records"),
        }
        if modes := ", ".join(f"{n} {mode}" for mode, n in counts["converted_modes"].items()):
            answer.warnings.append(f"Pictures that were not RGB were converted to it: {modes}.")
        for key, what in (
            ("not_square", "not square; their middle was taken"),
            ("enlarged", "smaller than asked for; enlarged"),
        ):
            if counts[key]:
                answer.warnings.append(f"{counts[key]:,} pictures are {what}.")
        if result.n_findings:
            first = rejected[rejected["kind"] == "picture"].iloc[0]
            answer.errors.append(
                DataError(
                    f"{result.n_findings} pictures could not be used and were left out; "
                    f"{first['file']}: {first['reason']}",
                    source=str(faces.folder / "quarantine.csv"),
                    fix="The data set is complete without them; fix the source and prepare it "
                    "under another --name to have them too",
                )
            )
        answer.errors += label_findings(faces)
        if not as_json and not quiet:
            _print_prepared(result)
            print_labels(faces)
    _exit_on(answer.errors, silent=as_json)


def _exit_on(findings: list[BenchmarkError], *, silent: bool) -> None:
    for finding in findings:
        if not silent:
            say_error(finding)
    if findings:
        raise typer.Exit(ExitCode.FINDINGS)


def _print_prepared(result: "PrepareResult") -> None:
    from benchmark.data.duplicates import near_in_words

    faces, manifest = result.faces, result.faces.manifest
    counts, same, where = manifest["counts"], manifest["counts"]["identical"], str(faces.folder)
    if not result.is_new:
        out.print(
            f"[bold]{faces.name}[/] is there already, from the same source with the same options: "
            f"nothing to do ({counts['usable']:,} faces in {escape(where)}).",
            soft_wrap=True,
        )
        return
    unlabelled = f"no labels in the {'table' if 'labels' in manifest else 'name'}"
    parts = (f"{name} {counts[name]:,}" for name in ("train", "val", "test"))
    lines = [
        ("image files", f"{counts['image_files']:,}"),
        ("usable faces", f"{counts['usable']:,}"),
        (unlabelled, f"{counts['quarantined_names']:,}"),
        ("pictures that cannot be used", f"{counts['quarantined_pictures']:,}"),
        ("files that are no pictures", f"{counts['not_pictures']:,}"),
        ("groups of identical files", f"{same['groups']:,}, holding {same['files']:,}"),
        ("  with conflicting labels", _conflicts(same)),
        ("near-duplicates", near_in_words(manifest["near_duplicates"])),
        ("faces with a place in a split", f"{counts['placed']:,}"),
        (f"  {faces.split_version}", " · ".join(parts)),
        ("split digest", faces.split_digest[:16]),
    ]
    seconds = f"{result.seconds:.1f} s"
    out.print(f"[bold]{faces.name}[/], prepared in {seconds}: {escape(where)}", soft_wrap=True)
    print_table(Table.of(["", Column("", left=True, fold=True)], lines))


def _conflicts(same: dict[str, int]) -> str:
    by_label = (
        f"{label.replace('_', ' ')} {same[f'groups_in_conflict_{label}']:,}"
        for label in ("age", *TASKS)
    )
    return f"{same['groups_in_conflict']:,} ({', '.join(by_label)})"


@app.command()
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

    Examples:
      facebench data sample --faces 4000
      facebench data sample --dataset utkface-100 --faces 8000 --name small
    """
    from benchmark.data.sample import choose_dataset, draw_sample, pairs_within_clusters

    with speaking("data sample", as_json=as_json) as answer:
        faces = choose_dataset(data_dir, dataset)
        with busy("sampling", quiet=as_json):
            chosen = draw_sample(faces, n_faces, name or f"{faces.name}-{n_faces}")
        counts = chosen.manifest["counts"]
        pairs = (pairs_within_clusters(chosen), pairs_within_clusters(faces))
        answer.data = {
            "name": chosen.name,
            "folder": str(chosen.folder),
            "of": faces.name,
            "counts": counts,
            "pairs_within_clusters": pairs[0],
            "pairs_within_clusters_of_all": pairs[1],
        }
        if not as_json:
            out.print(
                f"[bold]{chosen.name}[/]: {len(chosen.table):,} of {len(faces.table):,} faces in "
                f"{counts['clusters']:,} whole clusters, with {pairs[0]:,} of {pairs[1]:,} pairs "
                f"of the same picture\ntrain {counts['train']:,}, val {counts['val']:,}, test "
                f"{counts['test']:,}, as they were · {chosen.folder}",
                soft_wrap=True,
            )


@app.command()
def audit(
    dataset: DatasetName = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Count the faces of each part of the split, what leaks, and which labels are in conflict.

    Exits with 1 if anything is found that should not be.

    Examples:
      facebench data audit
      facebench data audit --dataset utkface-100 --json
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
        answer.errors += [DataError(finding) for finding in result.findings]
        if not as_json:
            _print_audit(result)
            _print_noise(noise)
            print_labels(result.faces)
    _exit_on(answer.errors, silent=as_json)


def _print_audit(result: "Audit") -> None:
    from benchmark.data.duplicates import near_in_words

    faces, counts = result.faces, result.faces.manifest["counts"]
    kind = "synthetic faces" if faces.drawn else "faces"
    out.print(
        f"[bold]{faces.name}[/]: {counts['usable']:,} {kind} of {faces.image_px} px, "
        f"{counts['placed']:,} in the split {faces.split_version}"
    )
    shared = [(s, *(f"{n:,}" for n in c.values())) for s, c in result.overlap_counts.items()]
    left_out = [(str(k), str(r), f"{n:,}") for k, r, n in result.left_out.itertuples(index=False)]
    reason = Column("reason", left=True, fold=True)
    for table in (
        *(_part_table(result.counts, part) for part in ("train", "val", "test")),
        Table.of(["split", "equal bytes", "cluster", "file name"], shared, "Shared between parts"),
        Table.of(["kind", reason, "files"], left_out, "Left out, and why"),
    ):
        out.print()
        print_table(table)
    same, near = result.duplicates, faces.manifest["near_duplicates"]
    out.print(
        f"Identical files: {same['groups']:,} groups holding {same['files']:,} files; labels in "
        f"conflict in {_conflicts(same)}; {same['groups_in_conflict_any_task']:,} groups disagree "
        "on a task and have no place.\n"
        f"Near-duplicates: {near_in_words(near)}; {counts['clusters_of_several']:,} clusters hold "
        f"more than one face, the largest {counts['largest_cluster']:,}. No cluster is divided."
    )
    if not result.findings:
        out.print("[green]Nothing found that should not be.[/]")


def _print_noise(noise: "pd.DataFrame") -> None:
    """Print how often labels of one photograph disagree, and the accuracy within reach."""
    from benchmark.comparison.references import ASSUMPTIONS

    def rate(row: dict[Any, Any], *names: str) -> Cell:
        value, low, high = (100 * float(row[name]) for name in names)
        return Cell(f"{value:.1f}", f"{low:.1f}–{high:.1f}")

    rows = [
        (
            TASK_TITLES[row["task"]],
            row["files"],
            f"{row['n_photographs']:,}",
            f"{row['n_pairs']:,}",
            rate(row, "disagree", "low", "high"),
            rate(row, "ceiling", "ceiling_low", "ceiling_high"),
            rate(row, "independent_ceiling", "independent_low", "independent_high"),
        )
        for row in noise[noise["disagree"].notna()].to_dict("records")
    ]
    if rows:
        headings = ("task", "files", "photos", "pairs", "disagree", "1 − d/2", "1 − e")
        print_table(Table.of(headings, rows, "Labels of one photograph, percent"))
        out.print(ASSUMPTIONS)


def _part_table(counts: "pd.DataFrame", part: str) -> Table:
    """Lay out one part: age group and gender down, race across, sums at the ends.

    Of faces that lack labels: task by task, with those that have none.
    """
    counts = counts[counts["part"] == part]
    title = f"{part}: {int(counts['n'].sum()):,} faces"
    if (counts[list(TASKS)] == MISSING).any(axis=None):
        lines = [
            (TASK_TITLES[task], name, f"{int(n_by_label.get(label, 0)):,}")
            for task in TASKS
            for n_by_label in [counts.groupby(task)["n"].sum()]
            for label, name in [*enumerate(CLASS_NAMES[task]), (MISSING, "not stated")]
        ]
        return Table.of(["task", "class", "faces"], lines, title)
    import pandas as pd

    classes = [range(len(CLASS_NAMES[task])) for task in TASKS]
    every = pd.MultiIndex.from_product(classes, names=TASKS)
    wide = counts.set_index(list(TASKS))["n"].reindex(every, fill_value=0).unstack("race")
    wide["all"] = wide.sum(axis=1)
    rows = [
        (CLASS_NAMES["age_group"][age], CLASS_NAMES["gender"][gender], *(f"{n:,}" for n in found))
        for (age, gender), *found in wide.itertuples(name=None)
    ]
    total = TableRow(tuple(map(Cell, ("all", "", *(f"{n:,}" for n in wide.sum())))), status="total")
    return Table.of(["age group", "gender", *CLASS_NAMES["race"], "all"], [*rows, total], title)
