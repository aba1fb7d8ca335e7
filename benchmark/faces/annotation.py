"""Write on a picture what was read off its faces: boxes with plates, or a caption beneath."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from benchmark.faces.crop import Box

SHORTEST_SIDE_PX: Final = 360
"""Smaller pictures are enlarged to it, so that the writing is no larger than the picture."""
INK: Final = (255, 255, 255)
PLATE: Final = (20, 60, 110)
LINE: Final = (255, 196, 0)


@dataclass(frozen=True)
class Remark:
    """What is to be written of one face; without a box it is about the whole picture."""

    lines: tuple[str, ...]
    box: Box | None = None


def annotated(picture: Image.Image, remarks: Sequence[Remark]) -> Image.Image:
    """Give an RGB copy with every remark on it, enlarged by a whole factor if it is small."""
    factor = max(1, -(-SHORTEST_SIDE_PX // min(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    text_px = max(14, round(min(size) / 24))
    boxed = [remark for remark in remarks if remark.box is not None]
    for remark in boxed:
        _frame(drawn, remark, factor, text_px)
    for remark in boxed:  # after all frames, so that none of them crosses a plate
        _plate(drawn, remark, factor, text_px)
    about_all = [line for remark in remarks if remark.box is None for line in remark.lines]
    return _captioned(drawn, about_all, text_px) if about_all else drawn


def _scaled(box: Box, factor: int) -> Box:
    left, top, right, bottom = (factor * place for place in box)
    return (left, top, right, bottom)


def _frame(drawn: Image.Image, remark: Remark, factor: int, text_px: int) -> None:
    assert remark.box is not None
    width = max(2, text_px // 7)
    ImageDraw.Draw(drawn).rectangle(_scaled(remark.box, factor), outline=LINE, width=width)


def _plate(drawn: Image.Image, remark: Remark, factor: int, text_px: int) -> None:
    """Put the lines under a face, or where that is beyond the picture, as far down as it goes."""
    assert remark.box is not None
    pen = ImageDraw.Draw(drawn)
    font, text = ImageFont.load_default(text_px), "\n".join(remark.lines)
    width, height = _text_size(pen, text, font)
    pad = text_px // 3
    left, _, _, bottom = _scaled(remark.box, factor)
    left = max(0, min(left, drawn.width - width - 2 * pad))
    top = max(0, min(bottom, drawn.height - height - 2 * pad))
    pen.rectangle((left, top, left + width + 2 * pad, top + height + 2 * pad), fill=PLATE)
    pen.multiline_text((left + pad, top + pad), text, INK, font=font)


def _captioned(drawn: Image.Image, lines: Sequence[str], text_px: int) -> Image.Image:
    """Lengthen the picture by a caption in the colour of plates."""
    font, text = ImageFont.load_default(text_px), "\n".join(lines)
    width, height = _text_size(ImageDraw.Draw(drawn), text, font)
    pad = text_px // 2
    size = (max(drawn.width, width + 2 * pad), drawn.height + height + 2 * pad)
    longer = Image.new("RGB", size, PLATE)
    longer.paste(drawn, ((size[0] - drawn.width) // 2, 0))
    place = (pad, drawn.height + pad)
    ImageDraw.Draw(longer).multiline_text(place, text, INK, font=font)
    return longer


def _text_size(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> tuple[int, int]:
    _, _, right, bottom = pen.multiline_textbbox((0, 0), text, font=font)
    return round(right), round(bottom)
