"""`facebench data`: fetch, prepare, sample and audit data sets of faces."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli import crop
from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, DatasetName
from benchmark.cli.output import (
    ExitCode,
    busy,
    err,
    out,
    print_table,
    say_error,
    say_warning,
    speaking,
    watching,
)
from benchmark.errors import BenchmarkError, DataError
from benchmark.reporting.tables import NOTHING, Cell, Column, Table
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS, TaskName

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.dataset import FaceSet

MOST_WORDS = 30
"""Of a column, that are printed."""

app = typer.Typer(no_args_is_help=True, help="Prepare and audit data sets of faces.")
app.command("crop")(crop.crop)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A published data set: utkface.")],
    accept: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its licence and accept it.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the licence of a published data set and, once it is accepted, fetch its archive.

    Whole and checked, or not there. Needs the extra: pip install 'facebench\\[fetch]'.

    Examples:
      facebench data fetch utkface
      facebench data fetch utkface --accept-licence
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
        fetched = fetch_published(data_dir, progress=not as_json)
        answer.data = {
            "file": str(fetched.path),
            "is_new": fetched.is_new,
            "faces": fetched.n_faces,
            "sha256": fetched.sha256,
            "terms": list(TERMS),
        }
        if not as_json:
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
    datasheet: Annotated[
        Path | None,
        typer.Option(
            help="A text: source, licence, how labelled, known limits; shown with results."
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
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
    from benchmark.data.archive import LINKED, decoded
    from benchmark.data.label_tables import parse_map
    from benchmark.data.prepare import prepare as prepare_faces

    with speaking("data prepare", as_json=as_json) as answer:
        with watching(quiet=as_json) as watch:
            result = prepare_faces(
                source,
                data_dir,
                image_px=image_px,
                name=name,
                table=table,
                layout=layout,
                labels=labels or [],
                given=parse_map(words or []),
                datasheet=decoded(datasheet.read_bytes())[0].strip() if datasheet else "",
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
        linked = rejected.loc[rejected["reason"] == LINKED, "file"].tolist()
        for n, what in (
            (counts["not_square"], "pictures are not square; their middle was taken"),
            (counts["enlarged"], "pictures are smaller than asked for; enlarged"),
            (len(linked), f"folders are links, and were not followed: {', '.join(linked[:3])}"),
        ):
            if n:
                answer.warnings.append(f"{n:,} {what}.")
        if n_unusable := counts["quarantined_pictures"]:
            first = rejected[rejected["kind"] == "picture"].iloc[0]
            answer.errors.append(
                DataError(
                    f"{n_unusable:,} pictures could not be used and were left out; "
                    f"{first['file']}: {first['reason']}",
                    source=str(faces.folder / "quarantine.csv"),
                    fix="The data set is complete without them; fix the source and prepare it "
                    "under another --name to have them too",
                )
            )
        answer.errors += _label_findings(faces)
        if not as_json:
            done = f"prepared in {result.seconds:.1f} s" if result.is_new else "is there already"
            out.print(f"[bold]{faces.name}[/] {done}: {escape(str(faces.folder))}", soft_wrap=True)
            _print_counts(faces)
            _print_labels(faces)
    _exit_on(answer.errors, silent=as_json)


def _exit_on(findings: list[BenchmarkError], *, silent: bool) -> None:
    for finding in findings:
        if not silent:
            say_error(finding)
    if findings:
        raise typer.Exit(ExitCode.FINDINGS)


def _print_counts(faces: "FaceSet") -> None:
    from benchmark.data.duplicates import near_in_words

    counts, same = faces.manifest["counts"], faces.manifest["counts"]["identical"]
    parts = (f"{name} {counts[name]:,}" for name in ("train", "val", "test"))
    conflicts = ", ".join(
        f"{label.replace('_', ' ')} {same[f'groups_in_conflict_{label}']:,}"
        for label in ("age", *TASKS)
    )
    lines = [
        ("image files", f"{counts['image_files']:,}"),
        ("usable faces", f"{counts['usable']:,}"),
        ("without labels", f"{counts['quarantined_names']:,}"),
        ("pictures that cannot be used", f"{counts['quarantined_pictures']:,}"),
        ("files that are no pictures", f"{counts['not_pictures']:,}"),
        ("groups of identical files", f"{same['groups']:,}, holding {same['files']:,}"),
        ("  with conflicting labels", f"{same['groups_in_conflict']:,} ({conflicts})"),
        ("near-duplicates", near_in_words(faces.manifest["near_duplicates"])),
        ("faces with a place in a split", f"{counts['placed']:,}"),
        (f"  {faces.split_version}", " · ".join(parts)),
        ("split digest", faces.split_digest[:16]),
    ]
    print_table(Table.of(["", Column("", left=True, fold=True)], lines))


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
    from benchmark.data.dataset import choose_dataset, draw_sample

    with speaking("data sample", as_json=as_json) as answer:
        faces = choose_dataset(data_dir, dataset)
        with busy("sampling", quiet=as_json):
            chosen = draw_sample(faces, n_faces, name or f"{faces.name}-{n_faces}")
        counts = chosen.manifest["counts"]
        answer.data = {
            "name": chosen.name,
            "folder": str(chosen.folder),
            "of": faces.name,
            "counts": counts,
        }
        if not as_json:
            out.print(
                f"[bold]{chosen.name}[/]: {len(chosen.table):,} of {len(faces.table):,} faces in "
                f"{counts['clusters']:,} whole clusters; train {counts['train']:,}, val "
                f"{counts['val']:,}, test {counts['test']:,}, as they were · {chosen.folder}",
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
    from benchmark.comparison.references import label_noise
    from benchmark.data.dataset import choose_dataset
    from benchmark.data.prepare import audit as audit_faces

    with speaking("data audit", as_json=as_json) as answer:
        faces = choose_dataset(data_dir, dataset)
        with busy("auditing", quiet=as_json):
            found = audit_faces(faces)
            noise = label_noise(faces.table)
        known = noise.astype(object).where(noise.notna(), None)
        answer.data = found | {"label_noise": known.to_dict("records")}
        answer.errors += [DataError(finding) for finding in found["findings"]]
        if not as_json:
            kind = "synthetic faces" if faces.drawn else "faces"
            out.print(f"[bold]{faces.name}[/], {kind} of {faces.image_px} px")
            _print_counts(faces)
            for table in _audit_tables(found):
                print_table(table)
            _print_noise(noise)
            _print_labels(faces)
            if not found["findings"]:
                out.print("[green]Nothing found that should not be.[/]")
    _exit_on(answer.errors, silent=as_json)


def _audit_tables(found: dict[str, Any]) -> list[Table]:
    """Lay out the faces of each part by class, what parts share, and what is left out."""
    import pandas as pd

    counts, parts = pd.DataFrame(found["counts"]), ("train", "val", "test")
    classes = []
    for task in TASKS:
        for label, name in [*enumerate(CLASS_NAMES[task]), (MISSING, "not stated")]:
            n_in = counts[counts[task] == label].groupby("part")["n"].sum()
            if label != MISSING or n_in.sum():
                numbers = (f"{int(n_in.get(part, 0)):,}" for part in parts)
                classes.append((TASK_TITLES[task], name, *numbers))
    shared = [(split, *map(str, n.values())) for split, n in found["overlaps"].items()]
    left_out = [(row["kind"], row["reason"], f"{row['n']:,}") for row in found["left_out"]]
    reason = Column("reason", left=True, fold=True)
    wide = counts.groupby(["part", *TASKS])["n"].sum().unstack("race", fill_value=0)
    races = [*range(len(CLASS_NAMES["race"])), *(MISSING for label in wide if label == MISSING)]
    strata = []
    for part in parts:
        of_part = wide.loc[[part] if part in wide.index else []]
        for (_, age, gender), *n in of_part.reindex(columns=races, fill_value=0).itertuples():
            names = _class_name("age_group", age), _class_name("gender", gender)
            strata.append((part, *names, *(f"{count:,}" for count in (*n, sum(n)))))
    heads = (*(_class_name("race", race) for race in races), "all")
    gaps = f" ({NOTHING}: not stated)" if (counts[[*TASKS]] == MISSING).any(axis=None) else ""
    title = f"Faces of each part by age group, gender and race{gaps}"
    return [
        Table.of(["task", "class", *parts], classes, "Faces of each part"),
        Table.of(["part", "age group", "gender", *heads], strata, title),
        Table.of(["split", "equal bytes", "cluster", "file name"], shared, "Shared between parts"),
        Table.of(["kind", reason, "files"], left_out, "Left out, and why"),
    ]


def _class_name(task: TaskName, label: int) -> str:
    return NOTHING if label == MISSING else CLASS_NAMES[task][label]


def _print_noise(noise: "pd.DataFrame") -> None:
    """Print how often labels of one photograph disagree, and the accuracy within reach."""
    from benchmark.comparison.references import ASSUMPTIONS

    rates = (
        ("disagree", "low", "high"),
        ("ceiling", "ceiling_low", "ceiling_high"),
        ("independent_ceiling", "independent_low", "independent_high"),
    )
    rows = [
        (
            TASK_TITLES[row["task"]],
            row["files"],
            *(f"{row[name]:,}" for name in ("n_photographs", "n_pairs")),
            *(
                Cell(f"{100 * row[rate]:.1f}", f"{100 * row[low]:.1f}–{100 * row[high]:.1f}")
                for rate, low, high in rates
            ),
        )
        for row in noise[noise["disagree"].notna()].to_dict("records")
    ]
    if rows:
        headings = ("task", "files", "photos", "pairs", "disagree", "1 − d/2", "1 − e")
        print_table(Table.of(headings, rows, "Labels of one photograph, percent"))
        out.print(ASSUMPTIONS)


def _label_findings(faces: "FaceSet") -> list[DataError]:
    """Give as errors what is wrong with a data set's table of labels; none without one."""
    from benchmark.data.labelled import findings

    labels = faces.manifest.get("labels")
    if labels is None:
        return []
    n_rows = int((faces.rejected()["kind"] == "row").sum())
    return [
        DataError(
            found,
            source=", ".join(file["name"] for file in labels["files"]),
            fix="What these rows do not tell is left out; --map TASK:WORD=CLASS says what a word "
            f"means, and {faces.folder / 'quarantine.csv'} lists what was left out",
        )
        for found in findings(labels, n_rows)
    ]


def _print_labels(faces: "FaceSet") -> None:
    """Print how the words were read, and what faces lack; nothing for faces named as UTKFace."""
    from benchmark.data.labelled import label_gaps

    labels = faces.manifest.get("labels")
    if labels is None:
        return
    files = ", ".join(file["name"] for file in labels["files"])
    rows = []
    for column, entries in labels["mapping"].items():
        by_rows = sorted(entries, key=lambda entry: -entry["rows"])
        for entry in entries if len(entries) <= MOST_WORDS else by_rows[:MOST_WORDS]:
            word = entry["word"] or "(empty)"
            word += f", once {entry['read_as']}" if entry["read_as"] else ""
            meaning = entry["class"] or f"none: {entry['why']}"
            rows.append((column, word, meaning, f"{entry['rows']:,}"))
        if others := by_rows[MOST_WORDS:]:
            n_rows = sum(entry["rows"] for entry in others)
            rows.append((column, f"{len(others):,} more words", "see manifest.json", f"{n_rows:,}"))
    if rows:
        headings = [Column(name, left=True) for name in ("column", "word", "class here")]
        title = f"What the words of {files} mean here, layout {labels['layout']}"
        print_table(Table.of([*headings, "rows"], rows, title))
    for sentence in label_gaps(faces):
        say_warning(sentence)
