"""Find the faces of photographs and cut them out as the study did: box, margin, resize.

    <picture>.png   the crops, under the pictures' own paths
    crops.csv       one row per picture: found, box, score, faces seen, or why not; written last
    crops.jsonl     the journal: how these are cropped, then a line per picture done

Run again, it resumes where it was stopped; when done, it crops pictures that are new or changed.
A detector is any object with `name` and `find`: OpenCV's YuNet, or somebody else's, named as
`module:callable` that takes the path of a model file (or None).
"""

import contextlib
import functools
import hashlib
import importlib
import json
import math
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmark.data.archive import open_source, printable
from benchmark.data.pictures import read_upright
from benchmark.data.progress import Key, OnProgress, in_parallel, keep_quiet, owned
from benchmark.errors import DataError
from benchmark.files import write_text

YUNET: Final = "yunet"
MODEL_PATTERN: Final = "*yunet*.onnx"
MODEL_SOURCE: Final = (
    "Get the YuNet model file (MIT licence) from models/face_detection_yunet of github.com/opencv/"
    "opencv_zoo, and name it with --detector-model or put it into the weights folder"
)
LOOKS_PX: Final = (640, 320, 1600)
"""Longest sides at which a larger picture is looked at, until faces are found: first for people who
stand in a photograph, then close up, then far away."""

PICTURES_A_CORE: Final = 8
"""Pictures read ahead for each core."""
TABLE_FILE: Final = "crops.csv"
JOURNAL_FILE: Final = "crops.jsonl"
PNG_END: Final = b"IEND\xae\x42\x60\x82"
OUTCOMES: Final = ("cropped", "no face", "unreadable")
BOX_COLUMNS: Final = ("left", "top", "right", "bottom")
COLUMNS: Final = ("file", "outcome", "crop", *BOX_COLUMNS, "score", "faces_seen", "reason")
"""Of crops.csv. A picture has a row for each of its crops, and one row where there is none."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the picture; right and bottom not included."""


class FoundFace(NamedTuple):
    """A face that a detector saw: its box in pixels, maybe beyond the picture; score, 0 to 1."""

    left: float
    top: float
    width: float
    height: float
    score: float


@runtime_checkable
class Detector(Protocol):
    """What finds faces. One object serves one thread."""

    name: str
    """What it is and of which version; crops by another name are other crops."""

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> Sequence[FoundFace]:
        """Find the faces of a picture, (height, width, 3) RGB, with scores from `threshold` on."""
        ...


@dataclass(frozen=True, slots=True)
class DetectorChoice:
    """Which detector, by a name that every process can load it by: `yunet` or `module:callable`;
    and its model file, for YuNet the only one in `weights_dir` if left out."""

    name: str = YUNET
    model: Path | None = None
    weights_dir: Path = Path("data/weights")


@functools.lru_cache(maxsize=1)
def load_detector(choice: DetectorChoice) -> Detector:
    """Load the detector chosen; raise DataError if it, its package or its model is not there."""
    if choice.model is not None and not choice.model.is_file():
        raise DataError(f"the model file {choice.model} does not exist", fix=MODEL_SOURCE)
    if choice.name == YUNET:
        found = [choice.model] if choice.model else sorted(choice.weights_dir.glob(MODEL_PATTERN))
        if len(found) != 1:
            raise DataError(
                f"{len(found)} model files of YuNet are in {choice.weights_dir}",
                allowed=f"one file {MODEL_PATTERN}",
                fix="Name one with --detector-model" if found else MODEL_SOURCE,
            )
        return YuNet(found[0])
    module, _, attribute = choice.name.partition(":")
    try:
        detector: object = getattr(importlib.import_module(module), attribute)(choice.model)
        if not isinstance(detector, Detector):
            raise AttributeError(f"it gave {type(detector).__name__}")
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"detector {choice.name!r} cannot be loaded: {error}",
            allowed=f"{YUNET} or module:callable, which gives an object with `name` and "
            "`find(pixels, threshold)`",
            source="benchmark.data.crop.Detector",
        ) from error
    return detector


class YuNet:
    """OpenCV's detector of upright faces; raises DataError without it or with another model file.

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
    Intelligence Research 20 (2023); `cv2.FaceDetectorYN`. It finds faces of some 10 to 300 pixels
    (its page in opencv_zoo), so that large pictures are looked at smaller.
    """

    def __init__(self, model: Path) -> None:
        try:
            import cv2
        except ImportError as error:
            raise DataError(
                f"OpenCV is not installed ({error})",
                allowed="the optional extra `crop`",
                fix="pip install 'facebench[crop]', or choose another --detector",
            ) from error
        # One picture a process at a time: its own threads would only get in each other's way.
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self._cv2: Any = cv2
        self.name = f"yunet-{hashlib.sha256(model.read_bytes()).hexdigest()[:12]}"
        try:  # 0.3: overlap of boxes, 5000: faces, as OpenCV's own defaults have them
            create: Any = cv2.FaceDetectorYN.create
            self._network = create(str(model), "", (320, 320), 0.5, 0.3, 5000)
            # A file of another network loads, and fails only at work.
            self.find(np.zeros((64, 64, 3), np.uint8), 0.5)
        except cv2.error as error:
            first_line = str(error).strip().splitlines()[0]
            raise DataError(
                f"{model} is not a YuNet model that OpenCV can use: {first_line}",
                allowed="face_detection_yunet of opencv_zoo, of dynamic input size for OpenCV 5",
            ) from error

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        """Find upright faces, (height, width, 3) RGB, at the first of LOOKS_PX that shows any."""
        height, width = pixels.shape[:2]
        longest = max(height, width)
        self._network.setScoreThreshold(threshold)
        for side in dict.fromkeys(min(look, longest) for look in LOOKS_PX):
            image: NDArray[Any] = pixels
            if side < longest:
                size = [max(1, round(px * (side / longest))) for px in (width, height)]
                image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_AREA)
            self._network.setInputSize((image.shape[1], image.shape[0]))
            faces: Any = self._network.detect(np.ascontiguousarray(image[:, :, ::-1]))[1]  # BGR
            if faces is not None:
                across, down = width / image.shape[1], height / image.shape[0]
                return [
                    FoundFace(left * across, top * down, wide * across, high * down, score)
                    for left, top, wide, high, *_, score in np.asarray(faces, float).tolist()
                ]
        return []


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How faces are chosen and cut; validated on construction.

    The defaults are the study's (its cropping notebook), which left the choice among several faces
    to chance. margin: share of the box's width added left and right, and of its height above and
    below. fit: `stretch` changes the shape to a square; `square` takes more of the picture, and
    black where there is no more. threshold: lower scores are not seen. detector: who finds faces.
    """

    margin: float = 0.2
    size_px: int = 100
    fit: Literal["stretch", "square"] = "stretch"
    faces: Literal["largest", "central", "all"] = "largest"
    threshold: float = 0.7
    detector: DetectorChoice = DetectorChoice()

    def __post_init__(self) -> None:
        for what, value, is_allowed, allowed in (
            ("margin", self.margin, 0 <= self.margin <= 2, "0 to 2"),  # False for nan, too
            ("threshold", self.threshold, 0.01 <= self.threshold <= 1, "0.01 to 1"),
            ("size", self.size_px, self.size_px in range(16, 1025), "16 to 1024 px"),
        ):
            if not is_allowed:
                raise DataError(f"{what} is {value!r}", allowed=allowed)


CutFace = tuple[Image.Image, dict[str, float]]
"""A face cut out, RGB, (size_px, size_px); its score and, by BOX_COLUMNS, its box as the detector
saw it, without margin."""


class CroppedPicture(NamedTuple):
    """What became of one picture: one of OUTCOMES, and why there is no crop."""

    outcome: str
    reason: str = ""
    faces_seen: int = 0
    crops: Sequence[CutFace] = ()


def crop_picture(image: Image.Image, detector: Detector, options: CropOptions) -> CroppedPicture:
    """Cut the faces that the options choose out of an upright RGB picture, the largest first."""
    width, height = image.size

    def from_centre(face: FoundFace) -> float:
        across, down = 2 * face.left + face.width - width, 2 * face.top + face.height - height
        return math.hypot(across, down)

    seen = [
        face
        for face in detector.find(np.asarray(image), options.threshold)
        if face.score >= options.threshold
        and min(face.left + face.width, width) - max(face.left, 0) >= 1
        and min(face.top + face.height, height) - max(face.top, 0) >= 1
    ]
    # Where two are alike, the one of the higher score comes first, then the one further left.
    seen.sort(key=lambda face: (-face.width * face.height, -face.score, face.left))
    if options.faces == "central":
        seen.sort(key=from_centre)
    crops = [_cut(image, face, options) for face in seen[: None if options.faces == "all" else 1]]
    outcome = ("cropped", "") if crops else ("no face", "no face found")
    return CroppedPicture(*outcome, len(seen), crops)


def _cut(image: Image.Image, face: FoundFace, options: CropOptions) -> CutFace:
    left, top, right, bottom = cut_box(face, image.size, options.margin)
    if options.fit == "square":  # about the middle; beyond the picture Pillow fills with black
        side = max(right - left, bottom - top)
        left, top = left - (side - (right - left)) // 2, top - (side - (bottom - top)) // 2
        right, bottom = left + side, top + side
    # BICUBIC is Pillow's own choice, which the study did not change.
    size, how = (options.size_px, options.size_px), Image.Resampling.BICUBIC
    piece = image.crop((left, top, right, bottom)).resize(size, how)
    left, top = int(face.left), int(face.top)
    box = (left, top, left + int(face.width), top + int(face.height))
    return piece, dict(zip(BOX_COLUMNS, box, strict=True)) | {"score": round(face.score, 4)}


def cut_box(face: FoundFace, size: tuple[int, int], margin: float) -> Box:
    """Add the margin to a face's box and clip it to the picture, in whole pixels as the study did.

    Source: its cropping notebook, `int(0.2 * w)` left and right, `int(0.2 * h)` above and below.
    """
    left, top = int(face.left), int(face.top)
    right, bottom = int(face.left + face.width), int(face.top + face.height)
    across, down = int(margin * (right - left)), int(margin * (bottom - top))
    left, top = max(left - across, 0), max(top - down, 0)
    right, bottom = min(right + across, size[0]), min(bottom + down, size[1])
    return (left, top, max(right, left + 1), max(bottom, top + 1))  # a pixel rounds to nothing


def cropped(
    contents: Iterable[tuple[Key, bytes | str]], n_pictures: int, options: CropOptions
) -> Generator[tuple[Key, CroppedPicture]]:
    """Crop pictures in order, on all cores; contents: of their files, or why there are none.

    Raises DataError before the first where the detector cannot be loaded.
    """
    load_detector(options.detector)
    crop = functools.partial(_cropped, options)
    yield from in_parallel(crop, contents, n_pictures, a_core=PICTURES_A_CORE)


def _cropped(options: CropOptions, content: bytes | str) -> CroppedPicture:
    if isinstance(content, str):
        return CroppedPicture("unreadable", content)
    try:
        image, *_ = read_upright(content)
    except DataError as error:
        return CroppedPicture("unreadable", str(error).removesuffix("."))
    return crop_picture(image, load_detector(options.detector), options)


def crop_folder(
    source: Path, target: Path, options: CropOptions, on_progress: OnProgress = keep_quiet
) -> tuple[pd.DataFrame, list[str], int]:
    """Crop every picture of a folder or archive into `target` that is not there unchanged.

    Gives the table (of COLUMNS, in the source's order), what was passed over (no picture by its
    name, or a linked folder), and how many pictures were cropped now. Raises DataError where there
    are no pictures, or `target` holds other files, or crops made otherwise.
    """
    opened = open_source(source)
    pictures, passed_over = opened.pictures()
    others = [f"{name} ({why})" for name, why in passed_over]
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        # where the next time they would be taken for pictures
        raise DataError(f"the crops would lie in {target}, among the pictures of {source}")
    files = {path: printable(path) for path in pictures}
    name_of = _crop_names([*files.values()])
    how = asdict(options) | {"source": source.resolve().name}
    how["detector"] = load_detector(options.detector).name
    with contextlib.ExitStack() as stack:
        stack.enter_context(owned(target, on_progress))
        before, n_new, gone = _journal(target, how), 0, set(files.values())
        done = {entry["rows"][0]["file"]: entry for entry in before}

        def contents() -> Iterator[tuple[tuple[int, str, str], bytes | str]]:
            """Read the source; leave out pictures whose crops are there, of the same bytes."""
            for number, (path, content) in enumerate(opened.contents(set(files)), start=1):
                body = content if isinstance(content, bytes) else content.encode()
                file, named = files[path], f"{name_of[files[path]]}\n".encode()
                gone.discard(file)
                sha256 = hashlib.sha256(named + body).hexdigest()
                if not _is_done(target, done.get(file), sha256):
                    yield (number, file, sha256), content

        journal = stack.enter_context((target / JOURNAL_FILE).open("a", encoding="utf-8"))
        (target / TABLE_FILE).unlink(missing_ok=True)  # it is there when all are done
        results = cropped(contents(), len(files), options)
        stack.enter_context(contextlib.closing(results))
        for (number, file, sha256), result in results:
            n_new += 1
            rows = _written(target, name_of[file], file, result)
            done[file] = {"rows": rows, "sha256": sha256}
            journal.write(json.dumps(done[file]) + "\n")
            journal.flush()
            on_progress("cropping", number, len(files))
        on_progress("cropping", len(files), len(files))
        for file in gone:
            lost = CroppedPicture("unreadable", "it went away meanwhile")
            done[file] = {"rows": _written(target, name_of[file], file, lost), "sha256": ""}
        entries = [done[file] for file in name_of]
        # Of pictures that are gone or have changed.
        for crop in _crops_of(before) - _crops_of(entries):
            (target / crop).unlink(missing_ok=True)
        table = pd.DataFrame([row for it in entries for row in it["rows"]], columns=list(COLUMNS))
        table = table.astype(dict.fromkeys(BOX_COLUMNS, "Int64") | {"score": "Float64"})
        _write_journal(target, how, entries)
        write_text(target / TABLE_FILE, table.to_csv(index=False))
    return table, others, n_new


def _journal(target: Path, how: dict[str, Any]) -> list[dict[str, Any]]:
    """Read what is noted of pictures done, damaged lines left out, or begin a journal."""
    path, lines = target / JOURNAL_FILE, [how]
    if path.exists():
        lines = []
        for text in path.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                lines.append(dict(json.loads(text)))
    elif target.exists() and (not target.is_dir() or any(target.iterdir())):
        allowed = "a new or empty folder, or one of earlier crops"
        raise DataError(f"{target} holds something else", allowed=allowed)
    made, *entries = lines or [how]
    for name, value in how.items():
        if made.get(name) != value:
            raise DataError(
                f"{target} holds crops made with {name} {made.get(name)!r}, not {value!r}",
                allowed="crops of one source, made in one way",
                fix="Name another folder with --out, or remove this one",
            )
    entries = [it for it in entries if {*it} == {"rows", "sha256"} and "file" in it["rows"][0]]
    _write_journal(target, how, entries)
    return entries


def _write_journal(target: Path, how: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(line) + "\n" for line in (how, *entries))
    write_text(target / JOURNAL_FILE, lines)


def _is_done(target: Path, entry: dict[str, Any] | None, sha256: str) -> bool:
    """Tell whether a picture's crops are there, each to its end, of this name and these bytes."""
    if entry is None or entry["sha256"] != sha256:
        return False
    paths = [target / crop for crop in _crops_of([entry])]
    return all(path.is_file() and path.read_bytes().endswith(PNG_END) for path in paths)


def _crops_of(entries: Iterable[dict[str, Any]]) -> set[str]:
    return {row["crop"] for entry in entries for row in entry["rows"] if row["crop"]}


def _written(target: Path, name: str, file: str, result: CroppedPicture) -> list[dict[str, Any]]:
    """Write a picture's crops, each whole or not at all; give its rows of the table."""
    row, rows = {"file": file, "crop": "", **result._asdict()}, []
    del row["crops"]
    for number, (image, found) in enumerate(result.crops, start=1):
        crop = f"{name}.png" if number == 1 else f"{name}.face-{number}.png"
        path = target / crop
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not files.replacing: on a slow disk its fsync takes longer than finding the face.
        temporary = path.with_name(f".{path.name}.part")
        image.save(temporary, "PNG")
        temporary.replace(path)
        rows.append(row | {"crop": crop} | found)
    return rows or [row]


def _crop_names(files: Sequence[str]) -> dict[str, str]:
    """Name crops as their pictures, without the ending where no two names are then one: neither in
    lower case, as on some file systems, nor that of another one's second face, a.face-2."""
    stems = [str(PurePosixPath(file).with_suffix("")) for file in files]
    are_many = len({stem.casefold() for stem in stems}) < len(stems)
    has_a_faces_name = any(re.search(r"\.face-\d+$", stem) for stem in stems)
    return dict(zip(files, files if are_many or has_a_faces_name else stems, strict=True))
