"""Near-duplicates among the pictures of a split: the nearest in each part, and all pairs in turn.

A split of films can have more pairs than fit into memory; only the nearest are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.faces.hashing import THRESHOLD_BITS, difference_hashes, near_blocks
from benchmark.faces.progress import OnProgress


@dataclass(frozen=True, slots=True)
class Near:
    """A picture that is near another one."""

    picture: int
    bits_apart: int
    """Of 256."""
    is_mirrored: bool


class NearPictures:
    """Pictures of different bytes, numbered from 0, compared with each other once."""

    def __init__(
        self,
        sketches: NDArray[np.uint8],
        members: NDArray[np.bool_],
        on_progress: OnProgress,
    ) -> None:
        """sketches: (n, 16, 17). members: (n, parts), whether a part has the picture."""
        self._sketches = sketches
        self._upright = difference_hashes(sketches)
        self._mirrored = difference_hashes(sketches[:, :, ::-1])
        self._no_code = (2 * THRESHOLD_BITS + 2) * len(sketches)
        # The nearest in each part, as one number that is the smaller the nearer it is.
        self._nearest = np.full(members.shape, self._no_code, np.int64)
        for block in near_blocks(sketches, on_progress=on_progress):
            first, second, bits, mirrored = block.T
            for one, other in ((first, second), (second, first)):
                code = (2 * bits + mirrored) * len(sketches) + other
                for part in range(members.shape[1]):
                    is_in_part = members[other, part]
                    np.minimum.at(self._nearest[:, part], one[is_in_part], code[is_in_part])

    def nearest(self, picture: int, part: int) -> Near | None:
        """Give the nearest picture of a part, the first of several; None if none is near."""
        code = int(self._nearest[picture, part])
        if code == self._no_code:
            return None
        cost, other = divmod(code, len(self._sketches))
        return Near(other, cost // 2, cost % 2 == 1)

    def compare(self, picture: int, other: int) -> Near | None:
        """Tell how near one other picture is; None if it is not."""
        low, high = min(picture, other), max(picture, other)  # as near_blocks has them
        bits = [
            int(np.bitwise_count(self._upright[:, low] ^ hashes[:, high]).sum())
            for hashes in (self._upright, self._mirrored)
        ]
        if min(bits) > THRESHOLD_BITS:
            return None
        return Near(other, min(bits), bits[1] < bits[0])

    def pairs(self, on_progress: OnProgress) -> Iterator[tuple[int, Near]]:
        """Yield all pairs again, each once, as they are found."""
        for block in near_blocks(self._sketches, on_progress=on_progress):
            for first, second, bits, mirrored in block.tolist():
                yield first, Near(second, bits, mirrored == 1)
