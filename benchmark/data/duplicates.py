"""Pictures that are the same: equal bytes, perceptual hash, aligned correlation; clusters.

Two detectors find one photograph in files of different bytes. Their thresholds were chosen by
looking at pairs; docs/DATA.md says at which.

Perceptual hash (dHash; N. Krawetz, "Kind of Like That", hackerfactor.com, 2013): for each of
16 x 16 places of a grey sketch, whether the place to the right is brighter. Re-encoding, scaling
and a change of tone leave nearly all of these 256 bits as they are.

Aligned correlation: the hash compares fixed places, and misses a photograph that was cropped,
turned or scaled anew. Candidates are pairs whose details (32 x 32 grey levels with the local mean
and contrast taken out, less the mean picture) have a cosine similarity of `CANDIDATE_COSINE` or
more. Of each candidate the centre of one thumbnail, scaled and turned a little, is searched for in
the other; the largest correlation coefficient decides.
"""

import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from benchmark.data.labels import LABELS
from benchmark.data.pictures import SKETCH_SHAPE, THUMBNAIL_SHAPE
from benchmark.data.progress import OnProgress, keep_quiet, n_cores
from benchmark.tasks import MISSING, TASKS

METHOD: Final = "dHash, 16 x 16 = 256 bits, mirrored too"
THRESHOLD_BITS: Final = 28
"""Of the pairs up to here some 2 % are two photographs; at 31 and 32 bits, three in four are."""

BLOCK_ROWS: Final = 32
"""Rows compared at a time: the distances of a block to 24,000 faces stay in the cache."""
CORRELATION_METHOD: Final = (
    "correlation of details, aligned by shift, scale and rotation, mirrored too"
)
CANDIDATE_COSINE: Final = 0.62
THRESHOLD: Final = 0.842
"""Of the 93 pairs that this adds to the perceptual hash about 25 show two photographs; of
the 107 pairs from 0.80 to it about ten show one."""

CENTRE: Final = slice(12, 52)
"""The part of the second thumbnail that is searched for, 40 x 40."""
N_SHIFTS: Final = THUMBNAIL_SHAPE[0] - 40 + 1
SCALES: Final = (0.92, 1.0, 1.08)
DEGREES: Final = (-5.0, 0.0, 5.0)
PADDED: Final = (128, 128)
BLOCK_PICTURES: Final = 512

Floats = NDArray[np.float32]
Greys = NDArray[np.uint8]
"""Grey levels of pictures: sketches or thumbnails."""


def difference_hashes(sketches: Greys) -> NDArray[np.uint64]:
    """Hash sketches (n, 16, 17) of grey levels to (4, n): four words of 64 bits a sketch, of which
    one is compared at a time: a quarter faster than (n, 4)."""
    brighter = sketches[:, :, 1:] > sketches[:, :, :-1]
    packed = np.packbits(brighter.reshape(len(sketches), 256), axis=1)
    return np.ascontiguousarray(packed.view(np.uint64).T)


def near_pairs(
    sketches: Greys, threshold_bits: int = THRESHOLD_BITS, on_progress: OnProgress = keep_quiet
) -> pd.DataFrame:
    """Compare every sketch (n, 16, 17) with every later one, upright and mirrored.

    Gives each pair once, in order of the faces: first, second (rows), distance_bits (upright or
    mirrored, whichever is less), is_mirrored.
    """
    upright, mirrored = difference_hashes(sketches), difference_hashes(sketches[:, :, ::-1])
    starts, found = range(0, len(sketches), BLOCK_ROWS), [np.empty((0, 4), np.int64)]
    with ThreadPoolExecutor(n_cores()) as pool:
        blocks = pool.map(lambda at: _near_in_block(upright, mirrored, at, threshold_bits), starts)
        for start, block in zip(starts, blocks, strict=True):
            found.append(block)
            done = min(start + BLOCK_ROWS, len(sketches))
            on_progress("looking for near-duplicates", done, len(sketches))
    columns = ["first", "second", "distance_bits", "is_mirrored"]
    pairs = pd.DataFrame(np.concatenate(found), columns=columns).astype({"is_mirrored": bool})
    return pairs.sort_values(columns).drop_duplicates(columns[:2]).reset_index(drop=True)


def _near_in_block(
    upright: NDArray[np.uint64], mirrored: NDArray[np.uint64], start: int, threshold_bits: int
) -> NDArray[np.int64]:
    """Compare rows from `start` with all later ones: first, second, distance, mirrored."""
    ours, found = upright[:, start : start + BLOCK_ROWS], []
    for is_mirrored, others in enumerate((upright[:, start:], mirrored[:, start:])):
        # Half of the bits rule out nearly every pair; the other half is counted for those left.
        half = np.bitwise_count(ours[0, :, None] ^ others[0])
        half += np.bitwise_count(ours[1, :, None] ^ others[1])
        row, column = np.nonzero(half <= threshold_bits)
        distance = half[row, column].astype(np.int64)
        for word in (2, 3):
            distance += np.bitwise_count(ours[word, row] ^ others[word, column])
        near = np.flatnonzero((distance <= threshold_bits) & (column > row))
        mirror = np.full_like(near, is_mirrored)
        rows = [row[near] + start, column[near] + start, distance[near], mirror]
        found.append(np.stack(rows, axis=1))
    return np.concatenate(found)


def aligned_pairs(thumbnails: Greys, on_progress: OnProgress = keep_quiet) -> pd.DataFrame:
    """Compare every thumbnail (n, 64, 64) with every later one, upright and mirrored.

    Gives each pair once, in order of the faces: first, second (rows), correlation (the largest
    coefficient over all alignments), is_mirrored.
    """
    candidates, found = _candidates(thumbnails, on_progress), []
    with ThreadPoolExecutor(n_cores()) as pool:
        results = pool.map(lambda candidate: _best_correlation(thumbnails, *candidate), candidates)
        for number, (candidate, best) in enumerate(zip(candidates, results, strict=True), start=1):
            found.append((*candidate, best))
            on_progress("comparing candidates in detail", number, len(candidates))
    pairs = pd.DataFrame(found, columns=["first", "second", "is_mirrored", "correlation"])
    pairs = pairs.astype({"first": "int64", "second": "int64", "is_mirrored": bool})
    # Of a pair that is near in both orientations the better; upright where they are equal.
    pairs = pairs[pairs["correlation"] >= THRESHOLD]
    pairs = pairs.sort_values("correlation", ascending=False, kind="stable")
    pairs = pairs.drop_duplicates(["first", "second"]).sort_values(["first", "second"])
    return pairs.reset_index(drop=True)


def _candidates(thumbnails: Greys, on_progress: OnProgress) -> list[tuple[int, int, bool]]:
    """Give (first, second, mirrored) of the pairs whose details are similar as they stand."""
    blocks = [slice(at, at + BLOCK_PICTURES) for at in range(0, len(thumbnails), BLOCK_PICTURES)]
    details = np.empty((len(thumbnails), 32, 32), np.float32)
    for block in blocks:
        halved = thumbnails[block].reshape(-1, 32, 2, 32, 2).mean((2, 4), dtype=np.float32)
        details[block] = _details(halved, (2.0, 3.0))
    mean = details.mean(axis=0, dtype=np.float64).astype(np.float32)
    upright, mirrored = _unit(details - mean), _unit(details[:, :, ::-1] - mean)
    found = []
    for block in blocks:
        for is_mirrored, others in ((False, upright), (True, mirrored)):
            similar = upright[block] @ others[block.start :].T >= CANDIDATE_COSINE
            later = np.argwhere(np.triu(similar, 1)) + block.start
            found += [(first, second, is_mirrored) for first, second in later.tolist()]
        done = min(block.stop, len(upright))
        on_progress("looking for near-duplicates in other framings", done, len(upright))
    return found


def _details(grey: Floats, sigmas: tuple[float, float]) -> Floats:
    """Take the local mean out of pictures (n, px, px), and divide by the local contrast.

    sigmas: of the Gaussian windows of mean and contrast, in pixels. Two grey levels are added to
    the contrast, so that flat places do not become noise.
    """
    around = [(0.0, sigma, sigma) for sigma in sigmas]
    details = grey - ndimage.gaussian_filter(grey, around[0])
    contrast = np.sqrt(ndimage.gaussian_filter(np.square(details), around[1]))
    return np.asarray(details / (contrast + 2), np.float32)


def _unit(details: Floats) -> Floats:
    flat = details.reshape(len(details), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(lengths, 1e-6), np.float32)


def _best_correlation(thumbnails: Greys, first: int, second: int, mirrored: bool) -> float:
    """Give the largest correlation of the second's centre, over all alignments, with the first."""
    where = _details(thumbnails[first][None].astype(np.float32), (4.0, 6.0))[0]
    what = thumbnails[second].astype(np.float32)
    if mirrored:
        what = what[:, ::-1]
    aligned = np.stack([_warped(what, *by) for by in itertools.product(SCALES, DEGREES)])
    centres = _details(aligned, (4.0, 6.0))[:, CENTRE, CENTRE]
    centres = centres - centres.mean((1, 2), keepdims=True)
    centres = _unit(centres).reshape(centres.shape)
    spectrum = np.fft.rfft2(where, PADDED)
    window = np.conj(np.fft.rfft2(np.ones_like(centres[0]), PADDED))
    sums, squares = (
        np.fft.irfft2(values * window, PADDED)[:N_SHIFTS, :N_SHIFTS]
        for values in (spectrum, np.fft.rfft2(np.square(where), PADDED))
    )
    spread = np.sqrt(np.maximum(squares - np.square(sums) / centres[0].size, 1e-3))
    products = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(centres, PADDED)), PADDED)
    # The shifts at which the centre lies inside the other thumbnail.
    return float((products[:, :N_SHIFTS, :N_SHIFTS] / spread).max())


def _warped(picture: Floats, scale: float, degrees: float) -> Floats:
    """Scale and turn a picture about its middle."""
    if scale == 1 and degrees == 0:
        return picture
    turn = np.radians(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / scale
    middle = (np.array(THUMBNAIL_SHAPE) - 1) / 2
    warped = ndimage.affine_transform(
        picture, matrix, middle - matrix @ middle, order=1, mode="nearest"
    )
    return np.asarray(warped, np.float32)


def identical_files(table: pd.DataFrame) -> pd.DataFrame:
    """Give the faces whose files equal another's byte by byte, by file name; by row of `table`.

    Columns file, sha256, and for each of LABELS whether it differs among those of the group that
    have it. Needs file, sha256 and the labels.
    """
    ordered = table.reset_index(drop=True).sort_values("file", kind="stable")
    repeated = ordered[ordered["sha256"].duplicated(keep=False)]
    known = repeated[list(LABELS)].where(repeated[list(LABELS)] != MISSING)
    differs = known.groupby(repeated["sha256"]).transform("nunique") > 1
    return repeated[["file", "sha256"]].join(differs)


def count_duplicates(table: pd.DataFrame) -> dict[str, int]:
    """Count groups of identical files and, for each label, those that disagree on it."""
    same = identical_files(table)
    groups = same.drop_duplicates("sha256")
    return {
        "groups": len(groups),
        "files": len(same),
        "groups_in_conflict": int(groups[list(LABELS)].any(axis=1).sum()),
        **{f"groups_in_conflict_{label}": int(groups[label].sum()) for label in LABELS},
        "groups_in_conflict_any_task": int(groups[list(TASKS)].any(axis=1).sum()),
    }


def near_duplicates(
    table: pd.DataFrame, on_progress: OnProgress = keep_quiet
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Find one photograph in files of different bytes: pairs of rows of `table`, and their counts.

    Needs sha256, and the bytes of sketch and thumbnail. Of files equal byte by byte only the first
    is compared. The pairs that at least one detector found come once, ascending: (pairs, 2); the
    counts are for the manifest.
    """
    distinct = table.drop_duplicates("sha256")
    sketches, thumbnails = (
        np.frombuffer(b"".join(distinct[kind]), np.uint8).reshape(-1, *shape)
        for kind, shape in (("sketch", SKETCH_SHAPE), ("thumbnail", THUMBNAIL_SHAPE))
    )
    by_hash = near_pairs(sketches, on_progress=on_progress)
    aligned = aligned_pairs(thumbnails, on_progress)
    either = pd.concat([by_hash, aligned])[["first", "second"]].drop_duplicates()
    rows = distinct.index.to_numpy()[either.sort_values(["first", "second"]).to_numpy()]
    return rows, {
        "method": METHOD,
        "threshold_bits": THRESHOLD_BITS,
        "pairs": len(by_hash),
        "mirrored_pairs": int(by_hash["is_mirrored"].sum()),
        "correlation": {
            "method": CORRELATION_METHOD,
            "threshold": THRESHOLD,
            "pairs": len(aligned),
            "mirrored_pairs": int(aligned["is_mirrored"].sum()),
            "pairs_not_found_by_hash": len(rows) - len(by_hash),
        },
        "pairs_by_either": len(rows),
    }


def near_in_words(described: Mapping[str, Any]) -> str:
    """Write the counts of `near_duplicates`, as a manifest keeps them, in one clause."""
    if described["threshold_bits"] is None:
        return str(described["method"])
    by_hash = f"{described['pairs']:,} pairs by perceptual hash"
    if "correlation" not in described:
        return by_hash
    return (
        f"{by_hash}, {described['correlation']['pairs']:,} by aligned correlation, "
        f"{described['pairs_by_either']:,} by either"
    )


def placement_columns(table: pd.DataFrame, near: NDArray[np.int64]) -> pd.DataFrame:
    """Give cluster, is_copy, label_conflict, no_place_reason for each row of `table`.

    A cluster is joined by equal bytes and by `near` pairs of rows, (pairs, 2); they are numbered
    from 0 in order of their first faces. A copy is any but the first by file name of a group of
    equal bytes that agrees on the tasks; a label conflict is every member of a group that does not.
    Neither has a place in a split.
    """
    same, reasons = identical_files(table), [""] * len(table)
    files_of = same.groupby("sha256")["file"].agg(list)
    is_conflict = same[list(TASKS)].any(axis=1)
    for row, file, sha256 in same[["file", "sha256"]].itertuples():
        first, *_ = files = files_of[sha256]
        if is_conflict[row]:
            reasons[row] = f"label conflict with {', '.join(it for it in files if it != file)}"
        elif file != first:
            reasons[row] = f"copy of {first}"
    content = pd.factorize(table["sha256"])[0]
    ends = content[near].T
    shape = (len(table), len(table))
    graph = sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=shape)
    components = csgraph.connected_components(graph, directed=False)[1]
    return pd.DataFrame(
        {
            "cluster": pd.factorize(components[content])[0],
            "is_copy": [int(reason.startswith("copy of ")) for reason in reasons],
            "label_conflict": [int(reason.startswith("label conflict ")) for reason in reasons],
            "no_place_reason": reasons,
        },
        index=table.index,
    )
