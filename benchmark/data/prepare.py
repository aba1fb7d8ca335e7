"""From an archive or a folder to a packed data set: read, label, decode, find duplicates, split.

The source is read twice: once for the names, so that the size and order of the packed array are
known and an unsafe or damaged archive is refused before anything is written; once for the
pictures, which are decoded on all cores. A prepared data set is audited here, too.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmark.data import dataset, splits
from benchmark.data.archive import Source, open_source
from benchmark.data.dataset import FaceSet, Prepared, Scan
from benchmark.data.duplicates import count_duplicates
from benchmark.data.labelled import FAIRFACE_SHEET, Layout, scan_source
from benchmark.data.labels import LABELS, Given, parse_name
from benchmark.data.pictures import Picture, decode, pixel_digest, write_pixels
from benchmark.data.progress import OnProgress, in_parallel, keep_quiet
from benchmark.errors import DataError
from benchmark.files import sha256_of, write_json
from benchmark.tasks import TASKS

IMAGE_PX: Final = range(16, 1025)


def prepare(
    source: Path,
    data_dir: Path,
    *,
    image_px: int = 100,
    name: str | None = None,
    table: Path | None = None,
    layout: Layout | None = None,
    labels: Sequence[Path] = (),
    given: Given | None = None,
    datasheet: str = "",
    on_progress: OnProgress = keep_quiet,
) -> Prepared:
    """Pack the faces of `source` under `data_dir`, or find that it was done before.

    table: the table.csv of a data set with the same faces, to take clusters and split from.
    layout, labels, given: where names do not give the labels: a layout's name, the tables of
    labels, and what their words mean. datasheet: what is shown beside numbers on these faces:
    source, licence, how labelled, known limits; it may be given later. Raises DataError on a source
    that is missing, damaged, unsafe or without faces, on a table of other faces, and OSError on a
    full disk; then no data set is left behind.
    """
    if image_px not in IMAGE_PX:
        allowed = f"{IMAGE_PX[0]} to {IMAGE_PX[-1]}"
        raise DataError(f"faces of {image_px} pixels a side were asked for", allowed=allowed)
    opened = open_source(source)
    origin = os.path.basename(os.path.abspath(source))
    stem = re.sub(r"\.(tar\.gz|tgz|tar|zip)$", "", origin.lower())
    stem = re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "faces"
    name = name or f"{stem}-{image_px}"
    dataset.check_dataset_name(name, drawn=False)
    scan = scan_source(opened, layout, labels, given or {})
    about: dict[str, Any] = {"name": name, "drawn": False, "image_px": image_px, "source": origin}
    about |= {"split_version": splits.SPLIT_VERSION, "table_source_sha256": None}
    if table is not None:
        placement, manifest = dataset.read_table(table), table.with_name(dataset.MANIFEST_FILE)
        dataset.check_same_faces(scan.table, placement)
        scan = scan._replace(placement=placement)
        about["table_source_sha256"] = sha256_of(table)
        if manifest.is_file():
            about["split_version"] = dataset.read_manifest(manifest)["split_version"]
    about["source_sha256"] = opened.sha256(on_progress)
    if scan.labels is not None:
        about["labels"] = scan.labels
    if datasheet or layout == "fairface":
        about["datasheet"] = datasheet or FAIRFACE_SHEET
    write, final = partial(_write, opened, scan, about, on_progress), data_dir / name
    faces, is_new = dataset.made_once(final, write, on_progress)
    if table is None:
        splits.check_split_version(faces)
    for what in ("labels", "source_sha256", "image_px", "table_source_sha256"):
        both = (said.get(what) for said in (faces.manifest, about))
        before, asked = (it.get("source_sha256") if isinstance(it, dict) else it for it in both)
        if before != asked:
            raise DataError(
                f"data set {name!r} was prepared with {what} {before}, and {asked} was asked for",
                allowed="the same source, size, --table, layout, --labels and --map as before",
                source=str(final),
                fix="Choose another --name, or remove that folder to prepare it anew",
            )
    if datasheet and faces.datasheet != datasheet:
        write_json(final / dataset.MANIFEST_FILE, faces.manifest | {"datasheet": datasheet})
        faces = dataset.open_faces(final)
    return Prepared(faces, is_new)


def _write(
    source: Source, scan: Scan, about: dict[str, Any], on_progress: OnProgress, folder: Path
) -> None:
    """Decode the faces of a source and write the data set's files."""
    image_px, row_of = about["image_px"], {path: row for row, path in enumerate(scan.paths)}
    results: dict[int, Picture | str] = {}
    contents = ((row_of[path], content) for path, content in source.contents(set(row_of)))
    parallel = in_parallel(partial(decode, image_px), contents, len(row_of))

    def usable() -> Iterator[tuple[int, bytes]]:
        """Give row and pixels; note of each row what it was, or why it is unusable."""
        for row, (pixels, picture) in parallel:
            results[row] = picture
            if pixels:
                yield row, pixels
            if len(results) % 32 == 0 or len(results) == len(row_of):
                on_progress("packing faces", len(results), len(row_of))

    with closing(parallel):
        write_pixels(folder / dataset.PIXELS_FILE, image_px, usable())
    found = [results.get(row, "it went away meanwhile") for row in range(len(scan.paths))]
    pictures = [it for it in found if isinstance(it, Picture)]
    named = zip(scan.table["file"], found, strict=True)
    unusable = [(file, dataset.PICTURE_KIND, why) for file, why in named if isinstance(why, str)]
    if not pictures:
        file, _, why = unusable[0]
        raise DataError(
            f"none of the {len(scan.paths)} pictures of {source.path} can be used; {file}: {why}"
        )
    kept = scan.table[[isinstance(it, Picture) for it in found]].reset_index(drop=True)
    scan = scan._replace(table=kept, rejected=[*scan.rejected, *unusable])
    dataset.finish_dataset(folder, scan, pictures, about, on_progress)


def audit(faces: FaceSet) -> dict[str, Any]:
    """Look for leaks, changed files and labels that contradict the names; count each part.

    counts: faces with a place, by part, age_group, gender, race; MISSING is a group too. left_out:
    rejected files, and faces without a place. overlaps: by split and by what is shared, pictures in
    two parts at once. findings: empty for a sound data set.
    """
    table = faces.table
    folds = {"80/10/10": None, **{f"fold {fold}": fold for fold in range(splits.N_FOLDS)}}
    found = {
        split: splits.overlaps(table, splits.part_rows(table, fold))
        for split, fold in folds.items()
    }
    counts = table[table["part"] != ""].groupby(["part", *TASKS]).size().rename("n")
    findings = [
        f"{split} leaks: {leaks[0][1]} ({len(leaks)} such overlaps)"
        for split, leaks in found.items()
        if leaks
    ]
    has_defect = (table["is_copy"] != 0) | (table["label_conflict"] != 0)
    if (has_defect & (table["part"] != "")).any():
        findings.append("a copy or a label conflict has a place in the split")
    if faces.labels_digest is None:
        rows = table[["file", *LABELS]].itertuples(index=False, name=None)
        if changed := [file for file, *labels in rows if _labels_of(file) != labels]:
            others = f"{len(changed)} faces have other labels than their names say"
            findings.append(f"{others}: {changed[0]}")
    elif dataset.labels_digest(table) != faces.labels_digest:
        findings.append("faces have other labels than the table of labels gave them")
    if pixel_digest(faces.folder / dataset.PIXELS_FILE) != faces.pixel_digest:
        findings.append(f"{dataset.PIXELS_FILE} was changed after it was prepared")
    shared = {split: [column for column, _ in leaks] for split, leaks in found.items()}
    return {
        "dataset": faces.name,
        "manifest": faces.manifest,
        "duplicates": count_duplicates(table),
        "left_out": faces.left_out().to_dict("records"),
        "counts": counts.reset_index().to_dict("records"),
        "overlaps": {
            split: {name: columns.count(name) for name in splits.IDENTITY_COLUMNS}
            for split, columns in shared.items()
        },
        "findings": findings,
    }


def _labels_of(file: str) -> list[int]:
    try:
        return list(parse_name(file))
    except DataError:
        return []
