"""Which pictures are the same photograph: perceptual hashes and all near pairs of them.

The hash is dHash: for each of 16 x 16 places of a grey sketch, whether the place to the right is
brighter. Re-encoding, scaling and a change of tone leave nearly all of these 256 bits as they
are. The mirrored sketch is compared too. Source of the method: N. Krawetz, "Kind of Like That",
hackerfactor.com, 2013; the threshold was chosen by looking at pairs, docs/DATA.md says at which.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmark.faces.progress import OnProgress, keep_quiet, n_cores

METHOD: Final = "dHash, 16 x 16 = 256 bits, mirrored too"
THRESHOLD_BITS: Final = 28
"""Of the pairs up to here some 2 % are two photographs; at 31 and 32 bits, three in four are."""

BLOCK_ROWS: Final = 32
"""Rows compared at a time: the distances of a block to 24,000 faces stay in the cache."""
BLOCKS_AHEAD: Final = 4
"""Blocks begun ahead for each core; this bounds the memory, however many pairs there are."""


@dataclass(frozen=True)
class NearPairs:
    """Pairs of faces at most `threshold_bits` apart, each pair once, in order of the faces."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    """Row of the other face; always the larger of the two."""
    distance_bits: NDArray[np.int64]
    """Differing bits, upright or mirrored, whichever are fewer."""
    is_mirrored: NDArray[np.bool_]
    """Whether the mirrored sketch is nearer than the upright one."""
    threshold_bits: int

    def __len__(self) -> int:
        return len(self.first)


def difference_hashes(sketches: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash sketches (n, 16, 17) of grey levels to (4, n): four words of 64 bits a sketch.

    Word by word, since one word of all faces is compared at a time: a quarter faster than (n, 4).
    """
    brighter = sketches[:, :, 1:] > sketches[:, :, :-1]
    packed = np.packbits(brighter.reshape(len(sketches), 256), axis=1)
    return np.ascontiguousarray(packed.view(np.uint64).T)


def near_pairs(
    sketches: NDArray[np.uint8],
    threshold_bits: int = THRESHOLD_BITS,
    on_progress: OnProgress = keep_quiet,
) -> NearPairs:
    """Compare every sketch (n, 16, 17) with every later one, upright and mirrored."""
    found = np.concatenate(
        [np.empty((0, 4), np.int64), *near_blocks(sketches, threshold_bits, on_progress)]
    )
    return NearPairs(found[:, 0], found[:, 1], found[:, 2], found[:, 3] == 1, threshold_bits)


def near_blocks(
    sketches: NDArray[np.uint8],
    threshold_bits: int = THRESHOLD_BITS,
    on_progress: OnProgress = keep_quiet,
) -> Generator[NDArray[np.int64]]:
    """Yield near pairs as they are found, (pairs, 4): first, second, distance, mirrored.

    Only the blocks under way are in memory: of films there can be more pairs than would fit.
    """
    upright = difference_hashes(sketches)
    mirrored = difference_hashes(sketches[:, :, ::-1])
    starts = deque(range(0, len(sketches), BLOCK_ROWS))
    under_way: deque[Future[NDArray[np.int64]]] = deque()
    n_blocks = len(starts)
    with ThreadPoolExecutor(n_cores()) as pool:
        for number in range(1, n_blocks + 1):
            while starts and len(under_way) < BLOCKS_AHEAD * n_cores():
                start = starts.popleft()
                block = pool.submit(_near_in_block, upright, mirrored, start, threshold_bits)
                under_way.append(block)
            yield under_way.popleft().result()
            done = min(number * BLOCK_ROWS, len(sketches))
            on_progress("looking for near-duplicates", done, len(sketches))


def _near_in_block(
    upright: NDArray[np.uint64], mirrored: NDArray[np.uint64], start: int, threshold_bits: int
) -> NDArray[np.int64]:
    """Give (pairs, 4): first, second, distance, mirrored; a pair near both ways once."""
    found = []
    for is_mirrored, others in enumerate((upright, mirrored)):
        first, second, distance = _near(upright, others, start, threshold_bits)
        found.append(np.stack([first, second, distance, np.full_like(first, is_mirrored)], axis=1))
    pairs = np.concatenate(found)
    order = np.lexsort((pairs[:, 3], pairs[:, 2], pairs[:, 1], pairs[:, 0]))
    pairs = pairs[order]
    is_repeated = np.zeros(len(pairs), bool)
    is_repeated[1:] = (pairs[1:, :2] == pairs[:-1, :2]).all(axis=1)
    return pairs[~is_repeated]


def _near(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64], start: int, threshold_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Compare rows from `start` with all later ones: rows, rows of others, distances in bits."""
    left, right = hashes[:, start : start + BLOCK_ROWS], others[:, start:]
    # Half of the bits rule out nearly every pair; the other half is counted for those left.
    half = np.bitwise_count(left[0, :, None] ^ right[0])
    half += np.bitwise_count(left[1, :, None] ^ right[1])
    row, column = np.nonzero(half <= threshold_bits)
    distance = half[row, column].astype(np.int64)
    for word in (2, 3):
        distance += np.bitwise_count(left[word, row] ^ right[word, column])
    is_near = (distance <= threshold_bits) & (column > row)
    return row[is_near] + start, column[is_near] + start, distance[is_near]
