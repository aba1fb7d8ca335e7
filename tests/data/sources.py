"""Small pictures, archives and parts of splits to try data code on; none of them shows anybody."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmark.data.drawn import draw_faces

PX = 96
"""Of the faces that splits are made of."""
CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "none": lambda face: encoded(face, quality=90),
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


def picture(seed: int, px: int = 48) -> Image.Image:
    """Soft coloured blots, (px, px): other blots for another seed."""
    blots = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize((px, px), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


def jpeg(seed: int, px: int = 48) -> bytes:
    return encoded(picture(seed, px), quality=90)


def face_name(number: int, age: int = 30, gender: int = 0, race: int = 0) -> str:
    return f"{age}_{gender}_{race}_201701161745{number:05d}.jpg.chip.jpg"


def faces(n: int, first: int = 0) -> dict[str, bytes]:
    """`n` different faces by name; ages, genders and races take turns."""
    return {
        f"UTKFace/{face_name(i, age=1 + i * 7 % 90, gender=i % 2, race=i % 5)}": jpeg(i)
        for i in range(first, first + n)
    }


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def tar_of(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    mode = "w:gz" if path.name.endswith(("gz", "tgz")) else "w"
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def drawn(n_faces: int) -> list[Image.Image]:
    return [Image.fromarray(face) for face in draw_faces(n_faces, 5, PX).images]


def part(path: Path, faces: dict[str, Image.Image], change: str = "none") -> Path:
    """Write a folder of faces by name."""
    return folder_of(path, {name: CHANGES[change](face) for name, face in faces.items()})


def listed(path: Path, *names: str) -> Path:
    """Write a list, a line for each name."""
    text = "".join(f"{name}\n" for name in names)
    return folder_of(path.parent, {path.name: text.encode()}) / path.name
