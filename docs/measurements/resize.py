"""What does decoding a JPEG at half size cost and change? Shows no picture.

    python docs/measurements/resize.py --source UTKFace.tar.gz

Compares ways from a 200 px JPEG to 100 px with decoding in full and resizing by LANCZOS: peak
signal-to-noise ratio over all pixels, and time per face on one core.
"""

import argparse
import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

N_FACES = 1_500
TARGET_PX = 100


def _decoded(content: bytes, *, at_target: bool = False) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    if at_target:
        picture.draft("RGB", (TARGET_PX, TARGET_PX))
    return picture.convert("RGB")


def _resized(content: bytes, resample: Image.Resampling) -> Image.Image:
    return _decoded(content).resize((TARGET_PX, TARGET_PX), resample)


WAYS: dict[str, Callable[[bytes], Image.Image]] = {
    "full, LANCZOS": lambda content: _resized(content, Image.Resampling.LANCZOS),
    "full, BILINEAR": lambda content: _resized(content, Image.Resampling.BILINEAR),
    "DCT at half size": lambda content: _decoded(content, at_target=True),
}


def _first_pictures(source: Path) -> list[bytes]:
    found: list[bytes] = []
    with tarfile.open(source, "r|*") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None and member.name.endswith(".jpg"):
                found.append(stream.read())
            if len(found) == N_FACES:
                break
    return found


def _decibels(faces: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> float:
    squared = np.square(faces.astype(np.float64) - wanted).mean()
    return float("inf") if squared == 0 else 10 * float(np.log10(255**2 / squared))


def main() -> None:
    """Print a row per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the official archive")
    pictures = _first_pictures(parser.parse_args().source)
    wanted = None
    print(f"{len(pictures):,} faces\nway               PSNR dB  ms a face")
    for name, way in WAYS.items():
        started = time.process_time()
        faces = np.stack([np.asarray(way(content)) for content in pictures])
        milliseconds = 1000 * (time.process_time() - started) / len(pictures)
        wanted = faces if wanted is None else wanted
        print(f"{name:<16} {_decibels(faces, wanted):>8.1f} {milliseconds:>10.2f}")


if __name__ == "__main__":
    main()
