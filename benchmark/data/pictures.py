"""From the bytes of one picture to its row of packed pixels, in faces.npy, and a sketch of it."""

import contextlib
import hashlib
import importlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from benchmark.errors import DataError

FORMATS = ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"]
FORMATS += ["AVIF"] if features.check("avif") else []
"""What is read; HEIC where pillow-heif is installed."""
with contextlib.suppress(ImportError):
    importlib.import_module("pillow_heif").register_heif_opener()
    FORMATS.append("HEIF")
WHOLE_PICTURE: Final = "a whole picture in " + ", ".join(FORMATS)
MIN_SIDE_PX: Final = 16
MAX_PIXELS: Final = 64_000_000

RESIZE_FILTER: Final = "JPEG: DCT scaling to 1/2^k, not below the target; then Pillow BILINEAR"
"""Nearer to decoding in full and resizing by LANCZOS than BILINEAR alone is, and faster
(docs/DATA.md)."""

SKETCH_PX: Final = 100
"""Sketches are made from a decoding of at least this side, whatever size is packed, so that the
near-duplicates, and with them the split, do not depend on `image_px`."""
SKETCH_SHAPE: Final = (16, 17)
"""Rows and columns of a sketch: 17 columns have 16 differences between neighbours."""
THUMBNAIL_SHAPE: Final = (64, 64)

PILLOW_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, struct.error, zlib.error),
)
"""What Pillow's readers raise on damaged files; they share no base class of their own."""

HEADER_BYTES: Final = 128
"""What numpy writes before the array for any number of faces: it keeps space to grow."""

Pixels = NDArray[np.uint8]


class Picture(NamedTuple):
    """What is known of one picture besides its pixels.

    mode: Pillow's, before conversion to RGB. width, height: in pixels, as stored. sketch,
    thumbnail: grey levels of SKETCH_SHAPE and of THUMBNAIL_SHAPE, to find near-duplicates.
    """

    sha256: str
    mode: str
    width: int
    height: int
    sketch: bytes
    thumbnail: bytes


def decode(image_px: int, content: bytes | str) -> tuple[bytes, Picture | str]:
    """Decode a picture: image_px * image_px * 3 bytes of RGB, and what the picture was; or no
    pixels and the reason. content: a file's bytes, or why there are none."""
    if isinstance(content, str):
        return b"", content
    try:
        coarse, mode, size = read_upright(content, SKETCH_PX)
        is_whole = coarse.width == min(size)
        fine = coarse if is_whole or image_px <= SKETCH_PX else read_upright(content, image_px)[0]
    except DataError as error:
        return b"", str(error).removesuffix(".")
    if fine.width != image_px:
        fine = fine.resize((image_px, image_px), Image.Resampling.BILINEAR)
    sha256 = hashlib.sha256(content).hexdigest()
    greys = (grey_of(coarse, shape) for shape in (SKETCH_SHAPE, THUMBNAIL_SHAPE))
    return fine.tobytes(), Picture(sha256, mode, *size, *greys)


def read_upright(
    content: bytes, square_px: int | None = None
) -> tuple[Image.Image, str, tuple[int, int]]:
    """Decode to RGB, turned as the camera was held; give also the mode and size that the file had.

    square_px: take the middle square, of at least this side where there are as many pixels; else
    nothing is cut or resized. What Pillow raises becomes one sentence, a DataError; small oddities,
    which it warns of, are none.
    """
    if not content:
        raise DataError("the file is empty", allowed=WHOLE_PICTURE)
    try:
        with warnings.catch_warnings():  # its filters are shared by all threads
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _opened(content, square_px)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(f"more than {MAX_PIXELS:,}") from error
    except UnidentifiedImageError as error:
        raise DataError(_foreign(content), allowed=WHOLE_PICTURE) from error
    except PILLOW_ERRORS as error:
        raise DataError(f"the picture is damaged: {error}", allowed=WHOLE_PICTURE) from error


def _foreign(content: bytes) -> str:
    """Say what a file is that Pillow does not know."""
    kinds = {b"avif": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIC"}
    kind = kinds.get(content[8:12]) if content[4:8] == b"ftyp" else None
    if kind is None:
        return "it is not a picture"
    return f"it is {kind} file, which Pillow does not read here; pip install pillow-heif adds HEIC"


def grey_of(picture: Image.Image, shape: tuple[int, int]) -> bytes:
    """Reduce an RGB picture to the grey levels of a sketch or thumbnail, each its box's mean."""
    rows, columns = shape
    small = picture.convert("L").resize((columns, rows), Image.Resampling.BOX)
    # Not small.tobytes(): its bytes are cut from a block of 64 KiB, and keeping one for each face
    # scatters the heap until it is ten times as large (495 MB and not 40 for 71,115 faces).
    return np.asarray(small).tobytes()


def _opened(content: bytes, square_px: int | None) -> tuple[Image.Image, str, tuple[int, int]]:
    with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        mode, (width, height) = picture.mode, picture.size
        # By the header, before a pixel is decoded.
        if min(width, height) < MIN_SIDE_PX:
            found = f"the picture has {width} x {height} pixels"
            raise DataError(found, allowed=f"sides from {MIN_SIDE_PX} pixels")
        if width * height > MAX_PIXELS:
            raise _too_large(f"{width} x {height}")
        if square_px is not None:
            picture.draft(None, (square_px, square_px))
        picture.load()
        # A camera's note of how it was held; one that cannot be read turns nothing.
        with contextlib.suppress(*PILLOW_ERRORS):
            ImageOps.exif_transpose(picture, in_place=True)
        rgb = _as_rgb(picture)
        if square_px is not None and rgb.width != rgb.height:
            side = min(rgb.size)
            left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
            rgb = rgb.crop((left, top, left + side, top + side))
        return rgb, mode, (width, height)


def _too_large(found: str) -> DataError:
    return DataError(f"the picture has {found} pixels", allowed=f"up to {MAX_PIXELS:,} pixels")


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Convert by a stated rule: alpha onto white, 16-bit grey by its upper byte."""
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        white.alpha_composite(opaque)
        return white.convert("RGB")
    if picture.mode.startswith("I;16"):
        levels = np.asarray(picture).astype(np.uint16) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if picture.mode not in ("RGB", "1", "L", "P", "CMYK", "YCbCr", "RGBX", "HSV"):
        found = f"the picture's mode is {picture.mode}, whose levels have no fixed range"
        raise DataError(found, allowed="RGB, grey, palette, CMYK, with or without alpha")
    return picture.convert("RGB")


def write_pixels(path: Path, image_px: int, faces: Iterable[tuple[int, bytes]]) -> None:
    """Write faces, row and (px, px, 3) bytes each, in any order: an .npy file, (n, px, px, 3).

    Rows that do not come are left out. Not through a memory map: on a full disk a write raises
    OSError, where a store into a map kills the process with SIGBUS.
    """
    size, rows = image_px * image_px * 3, []
    with path.open("w+b") as stream:
        for row, pixels in faces:
            rows.append(row)
            stream.seek(HEADER_BYTES + row * size)
            stream.write(pixels)
        for new, old in enumerate(sorted(rows)):
            if new != old:
                stream.seek(HEADER_BYTES + old * size)
                pixels = stream.read(size)
                stream.seek(HEADER_BYTES + new * size)
                stream.write(pixels)
        stream.truncate(HEADER_BYTES + len(rows) * size)
        stream.seek(0)
        shape = (len(rows), image_px, image_px, 3)
        npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert stream.tell() == HEADER_BYTES, "numpy's header has another length"
        stream.flush()
        os.fsync(stream.fileno())


def open_pixels(path: Path) -> Pixels:
    """Map a written file into memory, (n, px, px, 3); raise DataError if it is not whole.

    Copy-on-write: torch warns of arrays that it may not write to; what is written stays here.
    """
    try:
        pixels: Pixels = np.load(path, mmap_mode="c", allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"they are {pixels.dtype} of shape {pixels.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the packed faces cannot be read: {error}",
            allowed="the faces.npy that `facebench data prepare` wrote, uint8 (faces, px, px, 3)",
            source=str(path),
            fix="Remove the folder and prepare the data set again",
        ) from error
    return pixels


def pixel_digest(path: Path) -> str:
    """Give the sha256 of the array's bytes, which is the file without its header."""
    with path.open("rb") as stream:
        stream.seek(HEADER_BYTES)
        return hashlib.file_digest(stream, "sha256").hexdigest()
