"""`facebench data`: crop, fetch, prepare, sample and audit data sets; `audit-split`: any split."""

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.markup import escape

from benchmark.cli import options, output
from benchmark.cli.options import option
from benchmark.cli.output import err, out, print_table
from benchmark.errors import DataError, and_more
from benchmark.files import check_outputs, replacing
from benchmark.reporting.tables import NOTHING, Column, Table
from benchmark.tasks import CLASS_NAMES, MISSING, TASKS, TaskName

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

MOST_WORDS = 30
"""Of a column, that are printed."""
SHOWN_FILES = 10
"""Files that are listed on the screen; crops.csv has every picture."""
VERDICTS: Final = {
    "leaking": "[bold red]Leaking.[/]",
    "undecided": "[yellow]Undecided:[/] nothing leaks for certain, but names are alike.",
    "clean": "[green]Clean:[/] no two parts share a name, a file's bytes or a near-duplicate.",
    "clean by name": "[green]Clean[/] as far as names tell: no two parts share one.",
}

# Their defaults are those of benchmark.data.crop.CropOptions, which --help does not load.
_cropping = functools.partial(option, rich_help_panel="Cropping")
DetectorName = Annotated[str, _cropping("yunet, or module:callable.")]
DetectorModel = Annotated[Path | None, _cropping(
    "The detector's model file; for yunet the *yunet*.onnx in WEIGHTS_DIR if left out.",
    envvar="FACEBENCH_DETECTOR_MODEL")]  # fmt: skip
Faces = Annotated[
    Literal["largest", "central", "all"], _cropping("Which, where there are several.")
]


def crop(
    answer: options.Answer,
    source: Annotated[Path, typer.Argument(help="Folder, .tar, .tar.gz or .zip of photographs.")],
    out_dir: Annotated[Path | None, option(
        "Where the faces go; SOURCE-crops here if left out.", "--out")] = None,
    image_px: Annotated[int, option("Side of the faces in pixels.")] = 100,
    margin: Annotated[float, _cropping(
        "Share of the box's width and height added on each side.")] = 0.2,
    fit: Annotated[Literal["stretch", "square"], _cropping(
        "Stretch the box to a square, as the study did, or widen it to one.")] = "stretch",
    faces: Faces = "largest",
    threshold: Annotated[float, _cropping("Faces of lower scores are not seen; 0.01 to 1.")] = 0.7,
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: options.WeightsDir = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:  # fmt: skip
    """Find the faces in photographs and cut them out, as the study did: box, margin, resize.

    crops.csv says of every picture what was found, or why nothing. The same command resumes what
    was stopped, and does what is new or changed. Exits with 1 if any picture has no crop.

    Examples:
      facebench data crop holiday --detector-model yunet.onnx
      facebench data crop photos.zip --out faces --faces all --fit square --image-px 224
      facebench data crop UTKFace.tar.gz && facebench data prepare UTKFace-crops
    """
    from benchmark.data import crop as cropping

    choice = cropping.DetectorChoice(detector, detector_model, weights_dir or data_dir / "weights")
    how = cropping.CropOptions(margin, image_px, fit, faces, threshold, choice)
    name = re.sub(r"[.](tar[.]gz|tgz|tar|zip)$", "", source.resolve().name)
    folder = out_dir or Path(f"{name}-crops")
    with output.watching() as watch:
        table, others, n_new = cropping.crop_folder(source, folder, how, watch)
    of_picture = table.drop_duplicates("file")
    counts = {kind: int((of_picture["outcome"] == kind).sum()) for kind in cropping.OUTCOMES}
    without = table.loc[table["outcome"] != "cropped", ["file", "outcome", "reason"]]
    answer.data = {"folder": str(folder), "detector": cropping.load_detector(choice).name}
    answer.data |= {"new": n_new, "passed_over": others, "outcomes": counts}
    answer.data["without_crop"] = without.to_dict("records")
    if others:
        names = and_more(others, SHOWN_FILES)
        answer.warnings.append(f"{len(others):,} files were passed over: {names}.")
    if len(without):
        names = and_more((without["file"] + ": " + without["reason"]).tolist(), SHOWN_FILES)
        found = f"{len(without)} of {len(of_picture)} pictures have no crop; {names}"
        fix = "The others are done; a lower --threshold may find more"
        answer.errors.append(DataError(found, source=str(folder / "crops.csv"), fix=fix))
    numbers = {"pictures": len(of_picture), "done before": len(of_picture) - n_new}
    numbers |= counts | {"with several faces": int((of_picture["faces_seen"] > 1).sum())}
    out.print(f"[bold]{escape(str(folder))}[/], by {answer.data['detector']}", soft_wrap=True)
    print_table(Table.of(["", ""], [(k, f"{n:,}") for k, n in numbers.items()]))


def fetch(
    answer: options.Answer,
    name: Annotated[Literal["utkface"], typer.Argument(help="A published data set.")],
    accept_licence: Annotated[bool, option("You have read and accept its licence.")] = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Show the licence of a published data set and, once it is accepted, fetch its archive.

    Whole and checked, or not there. Needs the extra: pip install 'facebench\\[fetch]'.

    Examples:
      facebench data fetch utkface
      facebench data fetch utkface --accept-licence
    """
    from benchmark.data import archive as published

    for line in published.TERMS:
        err.print(escape(line), soft_wrap=True)
    if not accept_licence and sys.stdin.isatty():
        accept_licence = typer.confirm("Do you accept this?", default=False, err=True)
    if not accept_licence:
        fix = f"Read it above; `facebench data fetch {name} --accept-licence` accepts it"
        raise DataError(f"the licence of {name} was not accepted", fix=fix)
    path, is_new, n_pictures = published.fetch(data_dir, progress=not answer.prints_json)
    answer.data = {"file": str(path), "is_new": is_new, "pictures": n_pictures}
    answer.data |= {"terms": list(published.TERMS)}
    file, came = escape(str(path)), "fetched" if is_new else "there already"
    out.print(f"[bold]{file}[/] {came}: {n_pictures:,} pictures", soft_wrap=True)
    out.print(f"Next: facebench data prepare {file}", soft_wrap=True)


def prepare(
    answer: options.Answer,
    source: Annotated[Path, typer.Argument(
        help="Folder, .tar, .tar.gz or .zip with faces named as in UTKFace, or with --labels.")],
    image_px: Annotated[int, option("Side of the packed faces in pixels.")] = 100,
    name: Annotated[str | None, option("Name of the data set; from SOURCE if left out.")] = None,
    table: Annotated[Path | None, option(
        "A table.csv of the same faces, to take clusters and split from.")] = None,
    labels: Annotated[list[Path] | None, option(
        "A CSV file with the labels: file, age, age_group, gender, race.")] = None,
    layout: Annotated[Literal["utkface", "fairface", "table"] | None, option(
        "Where the labels are: utkface, fairface or table.")] = None,
    words: Annotated[list[str] | None, option(
        "What a word of the labels means: race:latino=Others, or none.", "--map")] = None,
    datasheet: Annotated[Path | None, option(
        "A text: source, licence, how labelled, known limits; shown with results.")] = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:  # fmt: skip
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
    from benchmark.data.archive import decoded
    from benchmark.data.labels import parse_map
    from benchmark.data.prepare import prepare as prepare_faces

    with output.watching() as watch:
        sheet = decoded(datasheet.read_bytes()).strip() if datasheet else ""
        faces, is_new = prepare_faces(
            source, data_dir, image_px=image_px, name=name, table=table, layout=layout,
            labels=labels or [], given=parse_map(words or []), datasheet=sheet, on_progress=watch,
        )  # fmt: skip
    answer.data = faces.manifest | {
        "dataset": faces.name,
        "folder": str(faces.folder),
        "is_new": is_new,
        "quarantine": faces.rejected().to_dict("records"),
    }
    _report_findings(answer, faces)
    done = "prepared" if is_new else "is there already"
    out.print(f"[bold]{faces.name}[/] {done}: {escape(str(faces.folder))}", soft_wrap=True)
    _print_counts(faces)


def _report_findings(answer: options.Answer, faces: "FaceSet") -> None:
    """Say what was changed in pictures or left out, and what of a source could not be used."""
    from benchmark.data.archive import LINKED
    from benchmark.data.labelled import findings, label_gaps

    manifest, rejected, table = faces.manifest, faces.rejected(), faces.folder / "quarantine.csv"
    counts, labels = manifest["counts"], manifest.get("labels")
    modes = counts["converted_modes"]
    converted = ", ".join(f"{n} {mode}" for mode, n in modes.items())
    linked = rejected.loc[rejected["reason"] == LINKED, "file"].tolist()
    changes = {
        f"pictures that were not RGB were converted to it: {converted}": sum(modes.values()),
        "pictures are not square; their middle was taken": counts["not_square"],
        "pictures are smaller than asked for; enlarged": counts["enlarged"],
        f"folders are links, and were not followed: {and_more(linked, 3)}": len(linked),
    }
    answer.warnings += [f"{n:,} {what}." for what, n in changes.items() if n] + label_gaps(faces)
    pictures = rejected[rejected["kind"] == "picture"]
    for file, reason in pictures[["file", "reason"]].head(1).itertuples(index=False):
        found = f"{len(pictures):,} pictures could not be used and were left out; {file}: {reason}"
        fix = "The data set is complete without them; fix the source and prepare it under another "
        answer.errors.append(DataError(found, source=str(table), fix=f"{fix}--name to have them"))
    if labels is not None:
        fix = "Unusable labels are skipped; --map TASK:WORD=CLASS defines a word; "
        fix += f"{table} lists what was left out"
        files = ", ".join(file["name"] for file in labels["files"])
        found_in_rows = findings(labels, int((rejected["kind"] == "row").sum()))
        answer.errors += [DataError(found, source=files, fix=fix) for found in found_in_rows]


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
    _print_labels(faces)


def sample(
    answer: options.Answer,
    n_faces: Annotated[int, option("About how many faces to draw.", "--faces")],
    dataset: options.DatasetName = None,
    name: Annotated[str | None, option("Name of the sample; DATASET-N if left out.")] = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Draw a smaller data set from a prepared one: clusters whole, each face in its part.

    For trying what takes long on all faces; its numbers are a data set's of their own.

    Examples:
      facebench data sample --faces 4000
      facebench data sample --dataset utkface-100 --faces 8000 --name small
    """
    from benchmark.data.dataset import choose_dataset, draw_sample

    faces = choose_dataset(data_dir, dataset)
    with output.busy("sampling"):
        chosen = draw_sample(faces, n_faces, name or f"{faces.name}-{n_faces}")
    counts = chosen.manifest["counts"]
    answer.data = {"name": chosen.name, "folder": str(chosen.folder), "counts": counts}
    parts = ", ".join(f"{part} {counts[part]:,}" for part in ("train", "val", "test"))
    out.print(
        f"[bold]{chosen.name}[/]: {len(chosen.table):,} of {len(faces.table):,} faces in "
        f"{counts['clusters']:,} whole clusters; {parts}, as they were · {chosen.folder}",
        soft_wrap=True,
    )


def audit(
    answer: options.Answer,
    dataset: options.DatasetName = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Count the faces of each part of the split, what leaks, and which labels are in conflict.

    Exits with 1 if anything is found that should not be.

    Examples:
      facebench data audit
    """
    from benchmark.comparison.references import label_noise
    from benchmark.data.dataset import choose_dataset
    from benchmark.data.labelled import label_gaps
    from benchmark.data.prepare import audit as audit_faces

    faces = choose_dataset(data_dir, dataset)
    with output.busy("auditing"):
        found = audit_faces(faces)
        noise = label_noise(faces.table)
    known = noise.astype(object).where(noise.notna(), None)
    answer.data = found | {"label_noise": known.to_dict("records")}
    answer.errors += [DataError(finding) for finding in found["findings"]]
    answer.warnings += label_gaps(faces)
    out.print(f"[bold]{faces.name}[/], {'synthetic ' * faces.drawn}faces of {faces.image_px} px")
    _print_counts(faces)
    for table in _audit_tables(found):
        print_table(table)
    if not found["findings"]:
        out.print("[green]Nothing found that should not be.[/]")


def _audit_tables(found: dict[str, Any]) -> Iterator[Table]:
    """Lay out the faces of each part by label, what parts share, and what is left out."""
    import pandas as pd

    counts = pd.DataFrame(found["counts"]).set_index(["part", *TASKS])["n"]
    wide = counts.unstack("race", fill_value=0).reindex(("train", "val", "test"), level="part")
    races = [*range(len(CLASS_NAMES["race"])), *{MISSING}.intersection(wide)]
    strata = []
    for (part, age, gender), *n in wide.reindex(columns=races, fill_value=0).itertuples():
        names = _class_name("age_group", age), _class_name("gender", gender)
        strata.append((part, *names, *(f"{count:,}" for count in (*n, sum(n)))))
    heads = (*(_class_name("race", race) for race in races), "all")
    gaps = f" ({NOTHING}: not stated)" if MISSING in counts.index.to_frame().to_numpy() else ""
    title = f"Faces of each part by age group, gender and race{gaps}"
    yield Table.of(["part", "age group", "gender", *heads], strata, title)
    shared = [(split, *map(str, n.values())) for split, n in found["overlaps"].items()]
    heads = ("split", "equal bytes", "cluster", "file name")
    yield Table.of(heads, shared, "Shared between parts")
    if left_out := [(row["kind"], row["reason"], f"{row['n']:,}") for row in found["left_out"]]:
        reason = Column("reason", left=True, fold=True)
        yield Table.of(["kind", reason, "files"], left_out, "Left out, and why")


def _class_name(task: TaskName, label: int) -> str:
    return NOTHING if label == MISSING else CLASS_NAMES[task][label]


def _print_labels(faces: "FaceSet") -> None:
    """Print how the words were read; nothing for faces named as UTKFace's."""
    labels, rows = faces.manifest.get("labels", {}), []
    for column, entries in labels.get("mapping", {}).items():
        rows += [
            (column, entry["word"] or "(empty)", entry["class"] or f"none: {entry['why']}",
             f"{entry['rows']:,}")
            for entry in entries[:MOST_WORDS]
        ]  # fmt: skip
        if others := entries[MOST_WORDS:]:
            n_rows = sum(entry["rows"] for entry in others)
            rows.append((column, f"{len(others):,} more words", "see manifest.json", f"{n_rows:,}"))
    if rows:
        files = ", ".join(file["name"] for file in labels["files"])
        headings = [Column(name, left=True) for name in ("column", "word", "class here")]
        title = f"What the words of {files} mean here, layout {labels['layout']}"
        print_table(Table.of([*headings, "rows"], rows, title))


def audit_split(
    answer: options.Answer,
    train: Annotated[Path, typer.Argument(
        metavar="TRAIN",
        help="Training part: a CSV, a text list of names, a folder or an archive of pictures.")],
    parts: Annotated[list[Path], typer.Argument(
        metavar="PART", help="The other parts, given likewise.")],
    images: Annotated[Path | None, option(
        "Folder or archive with the pictures that lists name.")] = None,
    csv_file: Annotated[Path | None, option(
        "Write every pair of files that two parts share here.", "--csv")] = None,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Say what the parts of a split share by name, bytes or near-duplicate.

    A CSV is read by its column file, filename, image, path or name, else by its first; a list has a
    name on each line; folders are searched in depth. Exits with 0 if the split is clean, with 1 if
    it leaks or if names alone cannot tell, and with 2 if a part cannot be read.

    Examples:
      facebench audit-split faces/train faces/val faces/test
      facebench audit-split train.csv test.csv --images faces --csv shared.csv
    """
    from benchmark.data import split_audit

    if csv_file is not None:
        check_outputs([csv_file], overwrite=overwrite, inputs=[train, *parts, images])
    with output.watching() as watch:
        audit, pairs = split_audit.audit_split([train, *parts], images, watch)
    if csv_file is not None:
        with replacing(csv_file) as path:
            pairs.to_csv(path, index=False, lineterminator="\n", errors="backslashreplace")
    answer.data = audit
    answer.errors = list(_split_findings(audit))
    answer.warnings = list(_split_warnings(audit))
    for table in _split_tables(audit):
        print_table(table)
    by_name = audit["verdict"] == "clean" and any(it["without_a_picture"] for it in audit["parts"])
    out.print(VERDICTS["clean by name" if by_name else audit["verdict"]])


def _split_findings(audit: dict[str, Any]) -> Iterator[DataError]:
    """Say in a sentence what leaks from each part into another, and what may."""
    training = audit["parts"][0]["name"]
    for overlap in audit["overlaps"]:
        part, other, n_files = overlap["part"], overlap["other_part"], f"{overlap['files']:,} files"
        if overlap["leaking"]:
            seen = overlap["leaking_fraction"]
            # Faces seen are taken to be as hard as the others, and to be all predicted rightly.
            highest = f": an honest 70 % can read as up to {70 + 30 * seen:.1f} %"
            yield DataError(
                f"{_percent(seen)} of {part} ({overlap['leaking']:,} of {n_files}) is in {other}"
                + (highest if other == training else "")
            )
        if overlap["undecided"]:
            yield DataError(
                f"{overlap['undecided']:,} of {n_files} of {part} may be in {other}: their names "
                "are alike and the pictures of both were not compared",
                fix="--images FOLDER compares the pictures of lists",
            )


def _split_warnings(audit: dict[str, Any]) -> Iterator[str]:
    """Say what was not compared, or not as it was given, and why."""
    for part in audit["parts"]:
        name, absent = part["name"], part["without_a_picture"]
        unlike = [f"{entry['file']}: {entry['reason']}" for entry in part["not_comparable"]]
        for n, what in (
            (part["rows_left_out"], f"rows of {name} have no name, or one that is listed already"),
            (part["not_pictures"], f"files of {name} are no pictures by their names"),
            (absent, f"of {part['files']:,} names of {name} have no picture, and are compared by "
             f"name only ({and_more(part['not_found'] or ['--images FOLDER finds them'], 3)})"),
            (len(unlike), f"pictures of {name} are not compared as near-duplicates "
             f"({and_more(unlike, 3)})"),
        ):  # fmt: skip
            if n:
                yield f"{n:,} {what}."


def _split_tables(audit: dict[str, Any]) -> Iterator[Table]:
    """Lay out overlaps and examples."""
    by_name_only = {part["name"] for part in audit["parts"] if not part["compared_by_bytes"]}
    alike = ("same_name", "same_base_name", "same_bytes", "near_duplicates", "leaking")
    rows, examples = [], []
    for overlap in audit["overlaps"]:
        pair = (overlap["part"], overlap["other_part"])
        counts = [f"{overlap[key]:,}" for key in alike]
        if by_name_only & {*pair}:
            counts[2:4] = NOTHING, NOTHING
        rows.append((*pair, *counts, _percent(overlap["leaking_fraction"])))
        for found in overlap["examples"]:
            how = f"{found['finding']} by {found['found_by']}" + ", mirrored" * found["mirrored"]
            files = f"{pair[0]}: {found['file']}\n{pair[1]}: {found['other_file']}"
            examples.append((how, files))
    heads = ("same name", "base name", "same bytes", "near-dup.", "together", "share")
    yield Table.of(("part", "in", *heads), rows, "Files of one part that are in another")
    if examples:
        columns = [Column(head, left=True, fold=True) for head in ("found", "files")]
        yield Table.of(columns, examples, "Examples (--csv FILE writes every pair)")


def _percent(fraction: float) -> str:
    """Format a fraction as a percentage; a non-zero fraction is never shown as 0."""
    return "<0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"
