"""From an archive or a folder to a packed data set: read, label, decode, find duplicates, split.

The source is read twice: once for the names, so that the size and order of the packed array are
known and an unsafe or damaged archive is refused before anything is written; once for the
pictures, which are decoded on all cores straight into their rows of faces.npy.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmark.data.archive import Source, open_source
from benchmark.data.dataset import (
    MANIFEST_FILE,
    PICTURE_KIND,
    PIXELS_FILE,
    FaceSet,
    Placement,
    check_dataset_name,
    check_same_faces,
    finish_dataset,
    open_faces,
    read_manifest,
    read_table,
    staged_folder,
    write_words,
)
from benchmark.data.label_tables import Given, Labelling, labelling_for
from benchmark.data.labelled import Scan, counted, scan_names, scan_with_tables
from benchmark.data.pictures import Picture, PixelWriter, decode_into
from benchmark.data.progress import OnProgress, in_parallel, keep_quiet
from benchmark.data.splits import SPLIT_VERSION, check_split_version
from benchmark.errors import DataError
from benchmark.files import file_lock, lock_owner, sha256_of

IMAGE_PX: Final = range(16, 1025)
BATCH_FACES: Final = 32
"""Pictures handed to a process at once: 8 to 128 made no difference that could be measured."""
BATCH_BYTES: Final = 4 << 20
"""A batch is closed early at this size, so that large pictures do not pile up in memory."""
BATCHES_A_CORE: Final = 4
"""Batches read ahead for each core; this bounds the memory, whatever the source holds."""


@dataclass(frozen=True, eq=False)
class PrepareResult:
    """A data set, and how it came about."""

    faces: FaceSet
    is_new: bool
    """False if it was there already, from the same source with the same options."""
    seconds: float

    @property
    def n_findings(self) -> int:
        """How many pictures could not be used, though a name or a row promised a face."""
        return int(self.faces.manifest["counts"]["quarantined_pictures"])


def prepare(
    source: Path,
    data_dir: Path,
    *,
    image_px: int = 100,
    name: str | None = None,
    table: Path | None = None,
    layout: str | None = None,
    labels: Sequence[Path] = (),
    given: Given | None = None,
    on_progress: OnProgress = keep_quiet,
) -> PrepareResult:
    """Pack the faces of `source` under `data_dir`, or find that it was done before.

    table: the table.csv of a data set with the same faces, to take clusters and split from.
    layout, labels, given: where their names do not give the labels: a layout's name, the tables of
    labels, and what their words mean (benchmark.data.label_tables).
    Raises DataError on a source that is missing, damaged, unsafe or without faces, on a table of
    other faces, and on a full disk; then no data set is left behind.
    """
    started = time.perf_counter()
    if image_px not in IMAGE_PX:
        allowed = f"{IMAGE_PX[0]} to {IMAGE_PX[-1]}"
        raise DataError(f"faces of {image_px} pixels a side were asked for", allowed=allowed)
    opened = open_source(source)
    source_name = os.path.basename(os.path.abspath(source))
    if name is None:
        stem = re.sub(r"\.(tar\.gz|tgz|tar|zip)$", "", source_name.lower())
        stem = re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "faces"
        name = f"{stem}-{image_px}"
    check_dataset_name(name, drawn=False)
    labelling = labelling_for(opened, layout, labels, given or {})
    placement = _read_placement(table) if table is not None else None
    about: dict[str, Any] = {
        "name": name,
        "drawn": False,
        "image_px": image_px,
        "source": source_name,
        "source_sha256": opened.sha256(on_progress),
    }
    final = data_dir / name
    is_new = not final.exists() and _make(opened, final, about, placement, labelling, on_progress)
    faces = open_faces(final)
    if placement is None:
        check_split_version(faces)
    _check_same(faces, about, placement, labelling)
    return PrepareResult(faces, is_new, time.perf_counter() - started)


@contextmanager
def one_at_a_time(data_dir: Path, name: str, on_progress: OnProgress) -> Iterator[None]:
    """Wait for another process that makes the same data set, and say so."""
    lock = data_dir / f".{name}.lock"
    with ExitStack() as locks:
        try:
            if not locks.enter_context(file_lock(lock)):
                other = lock_owner(lock).get("pid")
                on_progress(f"waiting for process {other}, which makes {name}", 0, 0)
                locks.enter_context(file_lock(lock, wait=True))
        except OSError as error:
            raise DataError(
                f"the data set cannot be written: {error.strerror}",
                allowed="a folder that may be written to",
                source=str(error.filename or data_dir),
                fix="Name another place with --data-dir",
            ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _read_placement(table: Path) -> Placement:
    if not table.is_file():
        raise DataError(f"{table} does not exist", allowed="a table.csv of a prepared data set")
    manifest = table.with_name(MANIFEST_FILE)
    version = read_manifest(manifest)["split_version"] if manifest.is_file() else SPLIT_VERSION
    return Placement(read_table(table), sha256_of(table), table.name, version)


def _check_same(
    faces: FaceSet,
    about: dict[str, Any],
    placement: Placement | None,
    labelling: Labelling | None,
) -> None:
    """Raise DataError if the data set of this name came from elsewhere or by other options."""
    labels = (faces.manifest.get("labels") or {}).get("source_sha256")
    for what, found, asked in (
        ("other labels", labels, labelling.source_sha256 if labelling else None),
        ("another source_sha256", faces.manifest["source_sha256"], about["source_sha256"]),
        ("another image_px", faces.image_px, about["image_px"]),
        (
            "another --table",
            faces.manifest["table_source_sha256"],
            placement.sha256 if placement else None,
        ),
    ):
        if found != asked:
            raise DataError(
                f"data set {faces.name!r} was prepared with {what}: {found}, and {asked} was asked "
                "for",
                allowed="the same source, size, --table, layout, --labels and --map as before",
                source=str(faces.folder),
                fix="Choose another --name, or remove that folder to prepare it anew",
            )


def _make(
    source: Source,
    final: Path,
    about: dict[str, Any],
    placement: Placement | None,
    labelling: Labelling | None,
    on_progress: OnProgress,
) -> bool:
    """Make a data set; False where another process made it meanwhile."""
    words = None
    if labelling is None:
        scan = scan_names(source)
    else:
        scan, about["labels"], words = scan_with_tables(source, labelling)
    if placement is not None:
        check_same_faces(scan.table, placement.table, placement.source)
    with one_at_a_time(final.parent, final.name, on_progress):
        if final.exists():
            return False
        with staged_folder(final) as folder:
            with PixelWriter(folder / PIXELS_FILE, about["image_px"], len(scan.paths)) as writer:
                results = _decode(source, scan, writer, on_progress)
                pictures = {
                    row: picture
                    for row, picture in sorted(results.items())
                    if isinstance(picture, Picture)
                }
                unusable = {row: why for row, why in results.items() if isinstance(why, str)}
                if not pictures:
                    raise DataError(
                        f"none of the {len(scan.paths)} pictures of {source.path} can be used; "
                        f"{scan.table['file'][0]}: {next(iter(unusable.values()))}",
                        allowed="whole pictures of faces",
                    )
                writer.finish(list(pictures))
            kept = scan.table.iloc[list(pictures)].reset_index(drop=True)
            if words is not None:
                about["labels"] = counted(about["labels"], kept)
                write_words(folder, words, kept)
            finish_dataset(
                folder,
                kept,
                list(pictures.values()),
                about,
                rejected=[
                    *scan.rejected,
                    *(
                        (scan.table["file"][row], PICTURE_KIND, why)
                        for row, why in unusable.items()
                    ),
                ],
                placement=placement,
                on_progress=on_progress,
            )
    return True


def _decode(
    source: Source, scan: Scan, writer: PixelWriter, on_progress: OnProgress
) -> dict[int, Picture | str]:
    """Decode every face into its row; give by row what it was, or why it cannot be used."""
    row_of = {path: row for row, path in enumerate(scan.paths)}
    results: dict[int, Picture | str] = {}

    def batches() -> Iterator[list[tuple[int, bytes]]]:
        batch: list[tuple[int, bytes]] = []
        for path, content in source.contents(set(row_of)):
            if isinstance(content, str):
                results[row_of[path]] = content
                continue
            batch.append((row_of[path], content))
            if len(batch) >= BATCH_FACES or sum(len(item[1]) for item in batch) >= BATCH_BYTES:
                yield batch
                batch = []
        yield batch

    decode = partial(decode_into, writer.path, writer.image_px)
    n_batches = -(-len(row_of) // BATCH_FACES)
    with closing(in_parallel(decode, batches(), n_batches, a_core=BATCHES_A_CORE)) as decoded:
        for several in decoded:
            results |= several
            on_progress("packing faces", len(results), len(row_of))
    if n_lost := len(row_of) - len(results):
        raise DataError(
            f"{source.path} changed while it was read: {n_lost} pictures are gone",
            fix="Prepare it again once nothing writes to it",
        )
    return results
