"""From the bytes of one picture to packed pixels and a sketch of it; labels are not known here."""

import contextlib
import hashlib
import importlib.util
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from benchmark.errors import DataError

OPTIONAL_FORMATS: Final = {"AVIF": "PIL.AvifImagePlugin", "HEIF": "pillow_heif"}
"""Read where the module is installed."""
FORMATS: Final = (
    *("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"),
    *(name for name, module in OPTIONAL_FORMATS.items() if importlib.util.find_spec(module)),
)
if "HEIF" in FORMATS:
    importlib.import_module("pillow_heif").register_heif_opener()
MIN_SIDE_PX: Final = 16
MAX_PIXELS: Final = 64_000_000

RESIZE_FILTER: Final = "JPEG: DCT scaling to 1/2^k, not below the target; then Pillow BILINEAR"
"""JPEGs are decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is not below the target; what is
then left to do, and every other format, is Pillow's BILINEAR, which averages when it reduces.

Decoding at half size leaves out the cosines that half the pixels cannot show. On 1,500 faces it
is nearer to decoding in full and resizing by LANCZOS (46.5 dB) than BILINEAR is (41.6 dB), and it
takes 0.14 ms a face against 0.34 (docs/DATA.md).
"""

SKETCH_PX: Final = 100
"""Sketches are made from a decoding of at least this side, whatever size is packed, so that the
near-duplicates, and with them the split, do not depend on `image_px`."""

SKETCH_SHAPE: Final = (16, 17)
"""Rows and columns of a sketch: 17 columns have 16 differences between neighbours."""

THUMBNAIL_SHAPE: Final = (64, 64)

PILLOW_ERRORS: Final = (
    # What Pillow's readers raise on damaged files; they share no base class of their own.
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of one picture besides its pixels."""

    sha256: str
    mode: str
    """Pillow's mode before conversion to RGB."""
    width: int
    height: int
    """In pixels, as stored: before turning, cropping and resizing."""
    sketch: bytes
    """Grey levels of SKETCH_SHAPE, row by row; what the perceptual hash is made of."""
    thumbnail: bytes
    """Grey levels of THUMBNAIL_SHAPE, row by row; what aligned correlation compares."""


@contextlib.contextmanager
def pillow_quiet() -> Iterator[None]:
    """Let Pillow refuse huge pictures instead of warning, and be silent about small oddities.

    For the thread that starts the others: the filters of `warnings` are shared by all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_picture(content: bytes, image_px: int) -> tuple[bytes, Picture]:
    """Decode a file's bytes: image_px * image_px * 3 bytes of RGB, and what the picture was.

    Raises DataError with the reason if there is no picture in it that can be used.
    """
    with _damage_told(content):
        coarse, mode, size = _decoded(content, SKETCH_PX)
        is_whole = coarse.width == min(size)
        fine = coarse if is_whole or image_px <= SKETCH_PX else _decoded(content, image_px)[0]
        pixels = _resized(fine, image_px).tobytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return pixels, Picture(sha256, mode, *size, sketch_of(coarse), thumbnail_of(coarse))


@dataclass(frozen=True, slots=True)
class UprightPicture:
    """A whole picture in RGB, turned as the camera was held, and what the file was."""

    image: Image.Image
    mode: str
    """Pillow's mode before conversion to RGB."""
    n_frames: int
    """Frames of an animation, of which this is the first; 1 for a picture that stands still."""
    is_turned: bool
    """Whether the camera's note of how it was held asked for a turn."""


def read_upright(content: bytes) -> UprightPicture:
    """Decode a file's bytes in full, by the rules of `read_picture`, but neither cut nor resized.

    Call it within `pillow_quiet`. Raises DataError with the reason if it cannot be used.
    """
    with (
        _damage_told(content),
        Image.open(io.BytesIO(content), formats=FORMATS) as picture,
    ):
        mode, size = picture.mode, picture.size
        _check_size(*size)
        n_frames = int(getattr(picture, "n_frames", 1))
        turn = picture.getexif().get(ExifTags.Base.Orientation, 1)
        picture.load()
        _turn_upright(picture)
        return UprightPicture(_as_rgb(picture), mode, n_frames, turn in range(2, 9))


@contextlib.contextmanager
def _damage_told(content: bytes) -> Iterator[None]:
    """Turn what Pillow raises on empty, damaged, huge and foreign files into one sentence."""
    if not content:
        raise DataError("the file is empty", allowed=_formats_in_words())
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(f"more than {MAX_PIXELS:,}") from error
    except UnidentifiedImageError as error:
        raise DataError(_foreign(content), allowed=_formats_in_words()) from error
    except PILLOW_ERRORS as error:
        raise DataError(f"the picture is damaged: {error}", allowed=_formats_in_words()) from error


def _foreign(content: bytes) -> str:
    """Say what a file is that Pillow does not know."""
    kinds = {b"avif": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIC"}
    kind = kinds.get(content[8:12]) if content[4:8] == b"ftyp" else None
    if kind is None:
        return "it is not a picture"
    return f"it is {kind} file, which Pillow does not read here; pip install pillow-heif adds HEIC"


def sketch_of(picture: Image.Image) -> bytes:
    """Reduce an RGB picture to the grey levels of SKETCH_SHAPE, each the mean of its box."""
    return _grey(picture, SKETCH_SHAPE)


def thumbnail_of(picture: Image.Image) -> bytes:
    """Reduce an RGB picture to the grey levels of THUMBNAIL_SHAPE, each the mean of its box."""
    return _grey(picture, THUMBNAIL_SHAPE)


def _grey(picture: Image.Image, shape: tuple[int, int]) -> bytes:
    rows, columns = shape
    small = picture.convert("L").resize((columns, rows), Image.Resampling.BOX)
    # Not small.tobytes(): its bytes are cut from a block of 64 KiB, and keeping one for each face
    # scatters the heap until it is ten times as large (495 MB and not 40 for 71,115 faces).
    return np.asarray(small).tobytes()


def _decoded(content: bytes, target_px: int) -> tuple[Image.Image, str, tuple[int, int]]:
    """Decode to a square RGB picture of at least `target_px` where there are as many pixels.

    Gives the mode and the size in pixels that the file had, too.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        mode, size = picture.mode, picture.size
        _check_size(*size)
        picture.draft(None, (target_px, target_px))
        picture.load()
        _turn_upright(picture)
        return _centre_square(_as_rgb(picture)), mode, size


def _check_size(width: int, height: int) -> None:
    # By the header, before a pixel is decoded.
    if min(width, height) < MIN_SIDE_PX:
        raise DataError(
            f"the picture has {width} x {height} pixels", allowed=f"sides from {MIN_SIDE_PX} pixels"
        )
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width} x {height}")


def _too_large(found: str) -> DataError:
    return DataError(f"the picture has {found} pixels", allowed=f"up to {MAX_PIXELS:,} pixels")


def _formats_in_words() -> str:
    return "a whole picture in " + ", ".join(FORMATS)


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
        raise DataError(
            f"the picture's mode is {picture.mode}, whose levels have no fixed range",
            allowed="RGB, grey, palette, CMYK, with or without alpha",
        )
    return picture.convert("RGB")


def _turn_upright(picture: Image.Image) -> None:
    # A camera's note of how it was held; where it cannot be read the picture is as good as any.
    with contextlib.suppress(*PILLOW_ERRORS):
        ImageOps.exif_transpose(picture, in_place=True)


def _centre_square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    if picture.width == picture.height:
        return picture
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _resized(square: Image.Image, image_px: int) -> Image.Image:
    if square.width == image_px:
        return square
    return square.resize((image_px, image_px), Image.Resampling.BILINEAR)
