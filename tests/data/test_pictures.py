"""Pictures of any kind become square RGB by a stated rule, or say why they cannot."""

import re
import struct
import zlib

import numpy as np
from PIL import Image

from benchmark.data.pictures import decode
from tests.data.sources import encoded, picture


def pixels_of(content: bytes, px: int = 32) -> np.ndarray:
    return np.frombuffer(decode(px, content)[0], np.uint8).reshape(px, px, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size in its header, and holds no pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_halving_a_jpeg_averages_its_pixels_and_a_large_face_is_decoded_as_large() -> None:
    content, whole = encoded(picture(1, px=200), quality=95), np.asarray(picture(1, px=200))
    averaged = whole.astype(float).reshape(100, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(pixels_of(content, 100) - averaged).mean() < 2
    assert decode(100, content)[1][1:4] == ("RGB", 200, 200)  # mode, width, height
    large = encoded(picture(5, px=400), quality=95)
    assert np.abs(pixels_of(large, 400) - np.asarray(picture(5, px=400)).astype(float)).mean() < 4


def test_colours_alpha_and_depth_are_converted_by_the_stated_rule_and_the_mode_named() -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    for content, mode, levels in (
        (encoded(Image.new("RGB", (32, 32), (250, 10, 10)).convert("CMYK"), quality=95), "CMYK",
         [250, 10, 10]),
        # Black at alpha 51 of 255 on white: 255 * (1 - 51 / 255) = 204.
        (encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 51)), "PNG"), "RGBA", [204, 204, 204]),
        (encoded(Image.new("LA", (32, 32), (0, 51)), "PNG"), "LA", [204, 204, 204]),
        (encoded(palette, "PNG"), "P", [10, 20, 30]),
        (encoded(palette, "PNG", transparency=0), "P", [255, 255, 255]),
        # 0x80FF is 128 * 256 + 255: the upper byte is 128.
        (encoded(Image.fromarray(np.full((32, 32), 0x80FF, np.uint16)), "PNG"), "I;16", [128] * 3),
        (encoded(Image.new("L", (32, 32), 90)), "L", [90, 90, 90]),
        (encoded(Image.new("1", (32, 32), 1), "PNG"), "1", [255, 255, 255]),
    ):  # fmt: skip
        assert decode(32, content)[1][1] == mode
        # JPEG of CMYK is the one that is not exact.
        tolerance = 12 if mode == "CMYK" else 0
        assert np.abs(pixels_of(content).astype(int) - levels).max() <= tolerance, mode
    face = pixels_of(encoded(picture(5), "AVIF", quality=95, subsampling="4:4:4")).astype(float)
    assert np.abs(face - pixels_of(encoded(picture(5), "PNG"))).mean() < 8


def test_a_wide_picture_keeps_its_middle_and_one_held_sideways_is_turned_upright() -> None:
    wide = Image.new("RGB", (96, 32), "black")
    wide.paste("white", (32, 0, 64, 32))
    assert (pixels_of(encoded(wide, "PNG")) == 255).all()
    sideways = Image.new("RGB", (32, 32), "black")
    sideways.paste("white", (0, 0, 32, 16))  # its upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the white half is on the right
    upright = pixels_of(encoded(sideways, "PNG", exif=exif))
    assert (upright[:, 17:].min(), upright[:, :15].max()) == (255, 0)
    damaged = encoded(picture(3), exif=b"Exif\0\0 no note at all")
    assert np.array_equal(pixels_of(damaged), pixels_of(encoded(picture(3))))


def test_an_unusable_picture_says_why() -> None:
    for content, reason in (
        (b"", "the file is empty"),
        (b"<html>not found</html>", "it is not a picture"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "it is a HEIC file.*pip install pillow-heif"),
        (encoded(picture(6), quality=90)[:900], "the picture is damaged"),
        (encoded(picture(6), "PNG")[:900], "the picture is damaged"),
        (encoded(Image.new("RGB", (1, 1))), "the picture has 1 x 1 pixels"),
        (encoded(Image.fromarray(np.zeros((32, 32), np.float32)), "TIFF"), "mode is F"),
        (png_header(8100, 8000), "the picture has 8100 x 8000 pixels"),
        (png_header(60_000, 60_000), "more than 64,000,000 pixels"),
    ):
        assert re.search(reason, str(decode(32, content)[1])), reason
