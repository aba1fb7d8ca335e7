"""Choose a data set, or draw a smaller one from it.

A smaller data set drawn from a prepared one, by whole clusters, each face in the part it was in.

For trying what takes long on all faces. The split is not drawn anew: what tests here tests there.

Which data set a command works on: the one asked for, the only one there, or drawn faces.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.data.dataset import (
    DRAWN_NAME,
    MANIFEST_FILE,
    PIXELS_FILE,
    QUARANTINE_COLUMNS,
    QUARANTINE_FILE,
    TABLE_FILE,
    FaceSet,
    check_dataset_name,
    counts_of,
    open_faces,
    prepared_datasets,
    staged_folder,
    store_faces,
    write_words,
)
from benchmark.data.drawn import DRAWING_VERSION, draw_faces
from benchmark.data.labelled import counted
from benchmark.data.splits import check_no_overlap, part_rows, split_digest
from benchmark.data.table import PixelWriter, pixel_digest, write_table
from benchmark.errors import DataError
from benchmark.files import file_lock, write_json, write_text

STORED_NAME: Final = f"drawn-v{DRAWING_VERSION}"
DRAWN_FACES: Final = 3_000
DRAWN_SEED: Final = 1


def choose_dataset(data_dir: Path, asked: str | None = None) -> FaceSet:
    """Give the data set asked for, the only photographed one prepared, or drawn faces.

    Drawn faces are made on first use. Raises DataError for an unknown name, and when several
    data sets are prepared and none was asked for.
    """
    prepared = {faces.name: faces for faces in prepared_datasets(data_dir)}
    if asked == DRAWN_NAME:
        return _drawn(data_dir)
    if asked is not None:
        if asked not in prepared:
            raise DataError(
                f"no data set {asked!r} is prepared",
                allowed=", ".join([*sorted(prepared), DRAWN_NAME]),
                source=str(data_dir),
                fix="`facebench data prepare SOURCE` makes one",
            )
        return prepared[asked]
    photographed = [faces for faces in prepared.values() if not faces.drawn]
    if len(photographed) > 1:
        raise DataError(
            f"{len(photographed)} data sets are prepared and none was asked for",
            allowed=", ".join(sorted(faces.name for faces in photographed)),
            source=str(data_dir),
            fix="Name one with --dataset",
        )
    return photographed[0] if photographed else _drawn(data_dir)


def _drawn(data_dir: Path) -> FaceSet:
    """Open the drawn faces, drawing them first where they are not; one process at a time."""
    with file_lock(data_dir / ".drawn.lock", wait=True):
        if (data_dir / STORED_NAME).is_dir():
            return open_faces(data_dir / STORED_NAME)
        drawn = draw_faces(DRAWN_FACES, DRAWN_SEED)
        return store_faces(
            drawn.images, drawn.labels, name=STORED_NAME, drawn=True, data_dir=data_dir
        )


SAMPLE_VERSION: Final = "clusters-1"
FEWEST: Final = 100


def draw_sample(faces: FaceSet, n_faces: int, name: str) -> FaceSet:
    """Store about `n_faces` of `faces` as the data set `name` beside it, clusters whole.

    Clusters are taken in the order of a hash of their first face's name, until there are
    `n_faces` or more; every machine draws the same. Copies and conflicts without a place come
    along with their clusters. Raises DataError for a size out of range or a name that is taken.
    """
    check_dataset_name(name, drawn=faces.drawn)
    if not FEWEST <= n_faces < len(faces.table):
        raise DataError(
            f"a sample of {n_faces:,} faces",
            allowed=f"{FEWEST} to {len(faces.table) - 1:,}, fewer than {faces.name} has",
        )
    final = faces.folder.parent / name
    if final.exists():
        return _same_sample(final, faces, n_faces)
    rows = sampled_rows(faces, n_faces)
    with staged_folder(final) as folder:
        _write_pixels(faces, rows, folder / PIXELS_FILE)
        table = faces.table.iloc[rows].reset_index(drop=True)
        check_no_overlap(table, part_rows(table))
        write_table(folder / TABLE_FILE, table)
        nothing = pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
        write_text(folder / QUARANTINE_FILE, nothing.to_csv(index=False, lineterminator="\n"))
        labels = faces.manifest.get("labels")
        if (words := faces.words()) is not None:
            write_words(folder, words, table)
        manifest = faces.manifest | {
            "name": name,
            "sample": _about(faces, n_faces),
            "near_duplicates": {
                "method": f"clusters of {faces.name}, kept whole",
                "threshold_bits": None,
            },
            "pixel_digest": pixel_digest(folder / PIXELS_FILE),
            "split_digest": split_digest(table),
            "counts": counts_of(table, nothing, faces.image_px),
            **({"labels": counted(labels, table)} if labels else {}),
        }
        write_json(folder / MANIFEST_FILE, manifest)
    return open_faces(final)


def sampled_rows(faces: FaceSet, n_faces: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose the rows of a sample, ascending: whole clusters, `n_faces` or a few more."""
    firsts = faces.table.sort_values("file", kind="stable").drop_duplicates("cluster")
    keys = [
        hashlib.sha256(f"{SAMPLE_VERSION}\n{file}".encode()).hexdigest() for file in firsts["file"]
    ]
    order = firsts["cluster"].to_numpy()[np.argsort(keys, kind="stable")]
    sizes = faces.table["cluster"].value_counts()
    n_clusters = int(np.searchsorted(np.cumsum(sizes.loc[order].to_numpy()), n_faces)) + 1
    chosen = np.isin(faces.table["cluster"].to_numpy(), order[:n_clusters])
    return np.flatnonzero(chosen)


def _write_pixels(
    faces: FaceSet, rows: np.ndarray[tuple[int], np.dtype[np.int64]], path: Path
) -> None:
    pixels = faces.pixels()
    writer = PixelWriter(path, len(rows), faces.image_px)
    try:
        for place, row in enumerate(rows.tolist()):
            writer.write(place, pixels[row].tobytes())
        writer.finish(range(len(rows)))
    finally:
        writer.close()


def _about(faces: FaceSet, n_faces: int) -> dict[str, Any]:
    return {
        "version": SAMPLE_VERSION,
        "of": faces.name,
        "pixel_digest": faces.pixel_digest,
        "n_asked": n_faces,
    }


def pairs_within_clusters(faces: FaceSet) -> int:
    """Count the pairs of faces that are the same picture: of a cluster of k, k (k - 1) / 2."""
    sizes = faces.table["cluster"].value_counts().to_numpy()
    return int((sizes * (sizes - 1) // 2).sum())


def _same_sample(folder: Path, faces: FaceSet, n_faces: int) -> FaceSet:
    there = open_faces(folder)
    if there.manifest.get("sample") != _about(faces, n_faces):
        raise DataError(
            f"data set {folder.name!r} is there already and is another one",
            source=str(folder),
            fix="Remove the folder, or choose another --name",
        )
    return there
