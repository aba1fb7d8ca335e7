"""Parts of splits made of drawn faces, with the copies a leak is made of; nobody is in them."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from benchmark.data.drawn import draw_faces
from tests.data.sources import encoded, folder_of

PX = 96

Change = Callable[[Image.Image], bytes]

AS_IT_IS: Change = lambda face: encoded(face, quality=90)  # noqa: E731
CHANGES: dict[str, Change] = {
    "re-encoded": lambda face: encoded(face, quality=40),
    "as PNG": lambda face: encoded(face, "PNG"),
    "as WebP": lambda face: encoded(face, "WEBP", quality=70),
    "as BMP": lambda face: encoded(face, "BMP"),
    "enlarged": lambda face: encoded(face.resize((200, 200), Image.Resampling.BICUBIC)),
    "mirrored": lambda face: encoded(ImageOps.mirror(face), quality=60),
    "in grey": lambda face: encoded(ImageOps.grayscale(face)),
    "brighter": lambda face: encoded(face.point(lambda level: 40 + level * 3 // 4)),
}
"""What people do to a picture before it comes back under another name."""


def drawn(n_faces: int, seed: int = 5) -> list[Image.Image]:
    return [Image.fromarray(face) for face in draw_faces(n_faces, seed, PX).images]


def part(path: Path, faces: dict[str, Image.Image], change: Change = AS_IT_IS) -> Path:
    """Write a folder of faces by name."""
    return folder_of(path, {name: change(face) for name, face in faces.items()})


def listed(path: Path, *names: str) -> Path:
    """Write a list, a line for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path
