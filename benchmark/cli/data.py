"""`facebench data`: fetch, crop, prepare, sample and audit data sets of faces."""

import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from benchmark.cli import output
from benchmark.cli.options import DEFAULT_DATA_DIR, Answer, DataDir, DatasetName, WeightsDir, option
from benchmark.cli.output import err, out, print_table
from benchmark.errors import DataError, and_more
from benchmark.reporting.tables import NOTHING, Cell, Column, Table
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS, TaskName

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.dataset import FaceSet

MOST_WORDS = 30
"""Of a column, that are printed."""
SHOWN_FILES = 10
"""Files that are listed on the screen; crops.csv has every picture."""

# fmt: off
OutDir = Annotated[Path | None, option(
    "Where the faces go; SOURCE-crops here if left out.", "--out")]
NamedFaces = Annotated[Path, typer.Argument(
    help="Folder, .tar, .tar.gz or .zip with faces named as in UTKFace, or with --labels.")]
Layout = Annotated[Literal["utkface", "fairface", "table"] | None, option(
    "Where the labels are: utkface, fairface or table.")]
LabelFiles = Annotated[list[Path] | None, option(
    "A CSV file with the labels: file, age, age_group, gender, race.")]
Words = Annotated[list[str] | None, option(
    "What a word of the labels means: race:latino=Others, or none.", "--map")]
Datasheet = Annotated[Path | None, option(
    "A text: source, licence, how labelled, known limits; shown with results.")]
SplitTable = Annotated[Path | None, option(
    "A table.csv of the same faces, to take clusters and split from.")]

# Their defaults are those of benchmark.data.crop.CropOptions, which --help does not load.
_cropping = functools.partial(option, rich_help_panel="Cropping")
Margin = Annotated[float, _cropping("Share of the box's width and height added on each side.")]
FitOption = Annotated[Literal["stretch", "square"], _cropping(
    "Stretch the box to a square, as the study did, or widen it to one.", "--fit")]
Faces = Annotated[Literal["largest", "central", "all"], _cropping(
    "Which, where there are several.", "--faces")]
DetectorName = Annotated[str, _cropping("yunet, or module:callable.", "--detector")]
DetectorModel = Annotated[Path | None, _cropping(
    "The detector's model file; for yunet the *yunet*.onnx in WEIGHTS_DIR if left out.",
    "--detector-model", envvar="FACEBENCH_DETECTOR_MODEL")]
# fmt: on


def crop(
    answer: Answer,
    source: Annotated[Path, typer.Argument(help="Folder, .tar, .tar.gz or .zip of photographs.")],
    out_dir: OutDir = None,
    image_px: Annotated[int, option("Side of the faces in pixels.")] = 100,
    margin: Margin = 0.2,
    fit: FitOption = "stretch",
    faces: Faces = "largest",
    threshold: Annotated[float, _cropping("Faces of lower scores are not seen; 0.01 to 1.")] = 0.7,
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: WeightsDir = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Find the faces in photographs and cut them out, as the study did: box, margin, resize.

    crops.csv says of every picture what was found, or why nothing. The same command resumes what
    was stopped, and does what is new or changed. Exits with 1 if any picture has no crop.

    Examples:
      facebench data crop holiday --detector-model yunet.onnx
      facebench data crop photos.zip --out faces --faces all --fit square --image-px 224
      facebench data crop UTKFace.tar.gz && facebench data prepare UTKFace-crops
    """
    from benchmark.data import crop as cropping

    options = cropping.CropOptions(margin, image_px, fit, faces, threshold)
    weights = weights_dir or data_dir / "weights"
    choice = cropping.DetectorChoice(detector, detector_model, weights)
    name = re.sub(r"[.](tar[.]gz|tgz|tar|zip)$", "", source.resolve().name)
    folder = out_dir or Path(f"{name}-crops")
    with output.watching() as watch:
        table, others, n_new = cropping.crop_folder(source, folder, options, choice, watch)
    of_picture = table.drop_duplicates("file")
    counts = {kind: int((of_picture["outcome"] == kind).sum()) for kind in cropping.OUTCOMES}
    without = table[table["outcome"] != "cropped"][["file", "outcome", "reason"]]
    answer.data = {
        "folder": str(folder),
        "detector": cropping.load_detector(choice).name,
        "pictures": len(of_picture),
        "new": n_new,
        "passed_over": others,
        "outcomes": counts,
        "crops": len(table) - len(without),
        "without_crop": without.to_dict("records"),
    }
    if others:
        what = "files are no pictures by their names, and were passed over"
        answer.warnings.append(f"{len(others):,} {what}: {and_more(others, SHOWN_FILES)}.")
    if len(without):
        missing = (without["file"] + ": " + without["reason"]).tolist()
        names = and_more(missing, SHOWN_FILES)
        found = f"{len(missing)} of {len(of_picture)} pictures have no crop; {names}"
        fix = "The others are done; a lower --threshold may find more"
        answer.errors.append(DataError(found, source=str(folder / "crops.csv"), fix=fix))
    numbers = {"pictures": len(of_picture), "done before": len(of_picture) - n_new}
    numbers |= counts | {"with several faces": int((of_picture["faces_seen"] > 1).sum())}
    by = f"by {answer.data['detector']}"
    out.print(f"[bold]{escape(str(folder))}[/], {by}", soft_wrap=True)
    print_table(Table.of(["", ""], [(k, f"{n:,}") for k, n in numbers.items()]))


def fetch(
    answer: Answer,
    name: Annotated[str, typer.Argument(help="A published data set: utkface.")],
    accept: Annotated[
        bool, option("You have read its licence and accept it.", "--accept-licence")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show the licence of a published data set and, once it is accepted, fetch its archive.

    Whole and checked, or not there. Needs the extra: pip install 'facebench\\[fetch]'.

    Examples:
      facebench data fetch utkface
      facebench data fetch utkface --accept-licence
    """
    from benchmark.data import fetch as published

    if name != published.NAME:
        raise DataError(f"no published data set is called {name!r}", allowed=published.NAME)
    for line in published.TERMS:
        err.print(escape(line), soft_wrap=True)
    if not accept and sys.stdin.isatty():
        accept = typer.confirm("Do you accept this?", default=False, err=True)
    if not accept:
        fix = f"Read it above; `facebench data fetch {name} --accept-licence` accepts it"
        raise DataError(f"the licence of {name} was not accepted", fix=fix)
    fetched = published.fetch(data_dir, progress=not answer.prints_json)
    answer.data = {
        "file": str(fetched.path),
        "is_new": fetched.is_new,
        "faces": fetched.n_faces,
        "sha256": fetched.sha256,
        "terms": list(published.TERMS),
    }
    file, came = escape(str(fetched.path)), "fetched" if fetched.is_new else "there already"
    about = f"names of {fetched.n_faces:,} faces, sha256 {fetched.sha256[:16]}"
    next_ = f"Next: facebench data prepare {file}"
    out.print(f"[bold]{file}[/] {came}: {about}\n{next_}", soft_wrap=True)


def prepare(
    answer: Answer,
    source: NamedFaces,
    image_px: Annotated[int, option("Side of the packed faces in pixels.")] = 100,
    name: Annotated[str | None, option("Name of the data set; from SOURCE if left out.")] = None,
    table: SplitTable = None,
    labels: LabelFiles = None,
    layout: Layout = None,
    words: Words = None,
    datasheet: Datasheet = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
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
    from benchmark.data.archive import decoded
    from benchmark.data.labelled import label_gaps
    from benchmark.data.labels import parse_map
    from benchmark.data.prepare import prepare as prepare_faces

    with output.watching() as watch:
        faces, is_new, seconds = prepare_faces(
            source,
            data_dir,
            image_px=image_px,
            name=name,
            table=table,
            layout=layout,
            labels=labels or [],
            given=parse_map(words or []),
            datasheet=decoded(datasheet.read_bytes()).strip() if datasheet else "",
            on_progress=watch,
        )
    answer.data = {
        "dataset": faces.name,
        "folder": str(faces.folder),
        "is_new": is_new,
        "seconds": round(seconds, 2),
        **{key: faces.manifest[key] for key in faces.manifest if key not in ("schema", "name")},
        "quarantine": faces.rejected().to_dict("records"),
    }
    answer.warnings += _conversions(faces) + label_gaps(faces)
    answer.errors += _unusable(faces)
    done = f"prepared in {seconds:.1f} s" if is_new else "is there already"
    out.print(f"[bold]{faces.name}[/] {done}: {escape(str(faces.folder))}", soft_wrap=True)
    _print_counts(faces)
    _print_labels(faces)


def _conversions(faces: "FaceSet") -> list[str]:
    """Say what was changed in pictures, and which folders were not looked into."""
    from benchmark.data.archive import LINKED

    counts, rejected = faces.manifest["counts"], faces.rejected()
    modes = ", ".join(f"{n} {mode}" for mode, n in counts["converted_modes"].items())
    linked = rejected.loc[rejected["reason"] == LINKED, "file"].tolist()
    said = [f"Pictures that were not RGB were converted to it: {modes}."] if modes else []
    return said + [
        f"{n:,} {what}."
        for n, what in (
            (counts["not_square"], "pictures are not square; their middle was taken"),
            (counts["enlarged"], "pictures are smaller than asked for; enlarged"),
            (len(linked), f"folders are links, and were not followed: {', '.join(linked[:3])}"),
        )
        if n
    ]


def _unusable(faces: "FaceSet") -> list[DataError]:
    """Say which pictures, words and rows of a source could not be used."""
    from benchmark.data.labelled import findings

    rejected, table = faces.rejected(), faces.folder / "quarantine.csv"
    errors, labels = list[DataError](), faces.manifest.get("labels")
    pictures = rejected[rejected["kind"] == "picture"]
    for file, reason in pictures[["file", "reason"]].head(1).itertuples(index=False):
        found = f"{len(pictures):,} pictures could not be used and were left out; {file}: {reason}"
        fix = "The data set is complete without them; fix the source and prepare it under another "
        errors.append(DataError(found, source=str(table), fix=f"{fix}--name to have them too"))
    if labels is not None:
        fix = "What these rows do not tell is left out; --map TASK:WORD=CLASS says what a word "
        fix += f"means, and {table} lists what was left out"
        files = ", ".join(file["name"] for file in labels["files"])
        found_in_rows = findings(labels, int((rejected["kind"] == "row").sum()))
        errors += [DataError(found, source=files, fix=fix) for found in found_in_rows]
    return errors


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


def sample(
    answer: Answer,
    n_faces: Annotated[int, option("About how many faces to draw.", "--faces")],
    dataset: DatasetName = None,
    name: Annotated[str | None, option("Name of the sample; DATASET-N if left out.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
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
    answer.data = {"name": chosen.name, "folder": str(chosen.folder)}
    answer.data |= {"of": faces.name, "counts": counts}
    parts = ", ".join(f"{part} {counts[part]:,}" for part in ("train", "val", "test"))
    out.print(
        f"[bold]{chosen.name}[/]: {len(chosen.table):,} of {len(faces.table):,} faces in "
        f"{counts['clusters']:,} whole clusters; {parts}, as they were · {chosen.folder}",
        soft_wrap=True,
    )


def audit(
    answer: Answer,
    dataset: DatasetName = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Count the faces of each part of the split, what leaks, and which labels are in conflict.

    Exits with 1 if anything is found that should not be.

    Examples:
      facebench data audit
      facebench data audit --dataset utkface-100 --json
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
    kind = "synthetic faces" if faces.drawn else "faces"
    out.print(f"[bold]{faces.name}[/], {kind} of {faces.image_px} px")
    _print_counts(faces)
    for table in _audit_tables(found):
        print_table(table)
    _print_noise(noise)
    _print_labels(faces)
    if not found["findings"]:
        out.print("[green]Nothing found that should not be.[/]")


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
    tables = [
        Table.of(["task", "class", *parts], classes, "Faces of each part"),
        Table.of(["part", "age group", "gender", *heads], strata, title),
        Table.of(["split", "equal bytes", "cluster", "file name"], shared, "Shared between parts"),
        Table.of(["kind", reason, "files"], left_out, "Left out, and why"),
    ]
    return tables if left_out else tables[:-1]


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
    rows = list[list[str | Cell]]()
    for row in noise[noise["disagree"].notna()].to_dict("records"):
        numbers = [f"{row[name]:,}" for name in ("n_photographs", "n_pairs")]
        percents = ([f"{100 * row[name]:.1f}" for name in names] for names in rates)
        cells = [Cell(rate, f"{low}–{high}") for rate, low, high in percents]
        rows.append([TASK_TITLES[row["task"]], row["files"], *numbers, *cells])
    if rows:
        headings = ("task", "files", "photos", "pairs", "disagree", "1 − d/2", "1 − e")
        print_table(Table.of(headings, rows, "Labels of one photograph, percent"))
        out.print(ASSUMPTIONS)


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
