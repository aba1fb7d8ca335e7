"""Which pictures are one photograph in another framing: correlation of their details, aligned.

The perceptual hash (benchmark.faces.hashing) compares fixed places, and misses a photograph that
was cropped, turned or scaled anew. This detector has two steps. Candidates are pairs whose
details (32 x 32 grey levels with the local mean and contrast taken out, less the mean picture)
have a cosine similarity of `CANDIDATE_COSINE` or more. Of each candidate the centre of one
thumbnail, scaled and turned a little, is searched for in the other; the largest correlation
coefficient decides. Both thresholds were chosen by looking at pairs; docs/DATA.md says at which.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmark.faces.pictures import THUMBNAIL_SHAPE
from benchmark.faces.progress import OnProgress, keep_quiet, n_cores

METHOD: Final = "correlation of details, aligned by shift, scale and rotation, mirrored too"
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
BLOCK_ROWS: Final = 512

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AlignedPairs:
    """Pairs of one photograph, each once, in order of the faces."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    """Row of the other face; always the larger of the two."""
    correlation: NDArray[np.float64]
    """Largest correlation coefficient over all alignments, upright or mirrored."""
    is_mirrored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)


def aligned_pairs(
    thumbnails: NDArray[np.uint8], on_progress: OnProgress = keep_quiet
) -> AlignedPairs:
    """Compare every thumbnail (n, 64, 64) with every later one, upright and mirrored."""
    candidates = _candidates(thumbnails, on_progress)
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    with ThreadPoolExecutor(n_cores()) as pool:
        results = pool.map(lambda candidate: _best_correlation(thumbnails, *candidate), candidates)
        for number, ((first, second, mirrored), best) in enumerate(
            zip(candidates, results, strict=True), start=1
        ):
            if best >= THRESHOLD and best > found.get((first, second), (0.0, False))[0]:
                found[first, second] = (best, mirrored)
            on_progress("comparing candidates in detail", number, len(candidates))
    pairs = sorted(found)
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return AlignedPairs(
        rows[:, 0],
        rows[:, 1],
        np.array([found[pair][0] for pair in pairs], np.float64),
        np.array([found[pair][1] for pair in pairs], np.bool_),
    )


def _candidates(
    thumbnails: NDArray[np.uint8], on_progress: OnProgress
) -> list[tuple[int, int, bool]]:
    """Give (first, second, mirrored) of the pairs whose details are similar as they stand."""
    if not len(thumbnails):
        return []
    details = np.empty((len(thumbnails), 32, 32), np.float32)
    for start in range(0, len(thumbnails), BLOCK_ROWS):
        block = thumbnails[start : start + BLOCK_ROWS]
        halved = block.reshape(-1, 32, 2, 32, 2).mean((2, 4), dtype=np.float32)
        details[start : start + BLOCK_ROWS] = _details(halved, (2.0, 3.0))
    mean = details.mean(axis=0, dtype=np.float64).astype(np.float32)
    upright, mirrored = _unit(details - mean), _unit(details[:, :, ::-1] - mean)
    found = []
    for start in range(0, len(upright), BLOCK_ROWS):
        ours = upright[start : start + BLOCK_ROWS]
        for is_mirrored, others in enumerate((upright, mirrored)):
            first, second = np.nonzero(ours @ others[start:].T >= CANDIDATE_COSINE)
            later = second > first
            rows = zip(first[later] + start, second[later] + start, strict=True)
            found += [(int(a), int(b), bool(is_mirrored)) for a, b in rows]
        done = min(start + BLOCK_ROWS, len(upright))
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


def _best_correlation(
    thumbnails: NDArray[np.uint8], first: int, second: int, mirrored: bool
) -> float:
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
        _shifts(np.fft.irfft2(values * window, PADDED))
        for values in (spectrum, np.fft.rfft2(np.square(where), PADDED))
    )
    spread = np.sqrt(np.maximum(squares - np.square(sums) / centres[0].size, 1e-3))
    products = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(centres, PADDED)), PADDED)
    return float((_shifts(products) / spread).max())


def _shifts(correlated: NDArray[Any]) -> NDArray[Any]:
    """Keep the shifts at which the centre lies inside the other thumbnail."""
    return correlated[..., :N_SHIFTS, :N_SHIFTS]


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
