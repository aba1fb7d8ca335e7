"""How many pairs of faces lie how far apart, and how fast they are found? Shows no picture.

    python docs/measurements/near_duplicates.py --faces data/utkface-100

Pictures that are equal byte by byte count once. Sketches are made from the packed faces.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.data.dataset import open_faces
from benchmark.data.duplicates import near_pairs
from benchmark.data.pictures import SKETCH_SHAPE, grey_of

BANDS = ((0, 12), (13, 20), (21, 24), (25, 28), (29, 30), (31, 32), (33, 34))


def main() -> None:
    """Print a row per band of distances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="a prepared data set")
    faces = open_faces(parser.parse_args().faces)
    first_of_bytes = (~faces.table["sha256"].duplicated()).to_numpy()
    pictures = faces.pixels()[first_of_bytes]
    greys = [grey_of(Image.fromarray(picture), SKETCH_SHAPE) for picture in pictures]
    sketches = np.frombuffer(b"".join(greys), np.uint8).reshape(-1, *SKETCH_SHAPE)
    started = time.perf_counter()
    pairs = near_pairs(sketches, threshold_bits=BANDS[-1][1])
    seconds = time.perf_counter() - started
    print(f"{len(pictures):,} different pictures, all pairs in {seconds:.1f} s")
    print("bits     upright  mirrored")
    for low, high in BANDS:
        inside = (pairs.distance_bits >= low) & (pairs.distance_bits <= high)
        mirrored = inside & pairs.is_mirrored
        print(f"{low:>2}-{high:<2} {(inside & ~mirrored).sum():>10,} {mirrored.sum():>9,}")


if __name__ == "__main__":
    main()
