"""Pictures of any kind become square RGB by a stated rule, or say why they cannot."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from benchmark.data.pictures import pillow_quiet, read_picture
from benchmark.errors import DataError
from tests.faces.sources import encoded, picture


def pixels_of(content: bytes, image_px: int = 32) -> np.ndarray:
    return np.frombuffer(read_picture(content, image_px)[0], np.uint8).reshape(
        image_px, image_px, 3
    )


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size in its header, and holds no pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_an_rgb_jpeg_keeps_its_size_mode_and_digest() -> None:
    content = encoded(picture(1, px=200), quality=90)
    pixels, known = read_picture(content, 100)
    assert (known.mode, known.width, known.height) == ("RGB", 200, 200)
    assert len(pixels) == 100 * 100 * 3
    assert len(known.sketch) == 16 * 17


def test_halving_a_jpeg_is_close_to_averaging_its_pixels() -> None:
    content = encoded(picture(1, px=200), quality=95)
    packed = pixels_of(content, 100).astype(float)
    whole = np.asarray(picture(1, px=200)).astype(float)
    averaged = whole.reshape(100, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(packed - averaged).mean() < 2


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG")],
)
def test_other_modes_are_converted_and_told(mode: str, format: str) -> None:
    _, known = read_picture(encoded(picture(2).convert(mode), format), 32)
    assert known.mode == mode


def test_cmyk_comes_out_in_its_own_colours() -> None:
    red = Image.new("RGB", (32, 32), (250, 10, 10)).convert("CMYK")
    assert np.abs(pixels_of(encoded(red, quality=95)).mean((0, 1)) - [250, 10, 10]).max() < 12


def test_alpha_is_laid_on_white() -> None:
    # Black at alpha 51 of 255 on white: 255 * (1 - 51 / 255) = 204.
    veil = Image.new("RGBA", (32, 32), (0, 0, 0, 51))
    assert (pixels_of(encoded(veil, "PNG")) == 204).all()


def test_a_transparent_palette_colour_becomes_white() -> None:
    blank = Image.new("P", (32, 32), 0)
    blank.putpalette([10, 20, 30] + [0] * 765)
    assert (pixels_of(encoded(blank, "PNG", transparency=0)) == 255).all()


def test_sixteen_bit_grey_is_read_by_its_upper_byte() -> None:
    # 0x80FF is 128 * 256 + 255: the upper byte is 128.
    grey = Image.fromarray(np.full((32, 32), 0x80FF, np.uint16))
    assert (pixels_of(encoded(grey, "PNG")) == 128).all()


def test_a_picture_of_floats_is_refused() -> None:
    floats = encoded(Image.fromarray(np.zeros((32, 32), np.float32)), "TIFF")
    with pytest.raises(DataError, match="mode is F"):
        read_picture(floats, 32)


def test_a_camera_held_sideways_is_turned_upright() -> None:
    sideways = Image.new("RGB", (32, 32), "black")
    sideways.paste("white", (0, 0, 32, 16))  # its upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the white half is on the right
    upright = pixels_of(encoded(sideways, "PNG", exif=exif))
    assert (upright[:, 17:] == 255).all()
    assert (upright[:, :15] == 0).all()


def test_a_damaged_camera_note_does_not_matter() -> None:
    content = encoded(picture(3), exif=b"Exif\0\0 no note at all")
    assert np.array_equal(pixels_of(content), pixels_of(encoded(picture(3))))


def test_a_wide_picture_keeps_its_middle() -> None:
    wide = Image.new("RGB", (96, 32), "black")
    wide.paste("white", (32, 0, 64, 32))
    assert (pixels_of(encoded(wide, "PNG")) == 255).all()


@pytest.mark.parametrize("px", [200, 130, 100])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_sketch_does_not_depend_on_the_packed_size(px: int, format: str) -> None:
    content = encoded(picture(4, px), format)
    sketches = {read_picture(content, image_px)[1].sketch for image_px in (32, 100, 128, 224)}
    assert len(sketches) == 1


def test_a_larger_face_is_not_made_from_the_sketchs_decoding() -> None:
    content = encoded(picture(5, px=400), quality=95)
    whole = np.asarray(picture(5, px=400)).astype(float)
    assert np.abs(pixels_of(content, 400) - whole).mean() < 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "it is not a picture"),
        (encoded(picture(6), quality=90)[:900], "the picture is damaged"),
        (encoded(picture(6), "PNG")[:900], "the picture is damaged"),
        (encoded(Image.new("RGB", (1, 1))), "the picture has 1 x 1 pixels"),
        (encoded(Image.new("RGB", (200, 15))), "the picture has 200 x 15 pixels"),
        (png_header(8100, 8000), "the picture has 8100 x 8000 pixels"),
        (png_header(12_000, 10_000), "more than 64,000,000 pixels"),
        (png_header(60_000, 60_000), "more than 64,000,000 pixels"),
    ],
)
def test_an_unusable_picture_says_why(content: bytes, reason: str) -> None:
    with pillow_quiet(), pytest.raises(DataError) as caught:
        read_picture(content, 32)
    assert reason in caught.value.found
