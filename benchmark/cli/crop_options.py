"""Options of finding and cutting faces, shared by `data crop` and `predict`, spelled once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from benchmark.data.crop import CropOptions, DetectorChoice

# As benchmark.data.crop has them; here so that --help loads no picture library.
Fit = Literal["stretch", "square"]
Choice = Literal["largest", "central", "all"]
BorderFill = Literal["replicate", "blur", "black"]

Margin = Annotated[
    float, typer.Option(help="Share of the box's width and height added on each side.")
]
FitOption = Annotated[
    Fit,
    typer.Option(
        "--fit", help="Stretch the box to a square, as the study did, or widen it to one."
    ),
]
Faces = Annotated[Choice, typer.Option("--faces", help="Which, where there are several.")]
Threshold = Annotated[float, typer.Option(help="Faces of lower scores are not seen; 0.01 to 1.")]
Border = Annotated[
    float,
    typer.Option(
        help="Share of width and height added on each side before looking, for pictures cut so "
        "tightly that no face is seen in them."
    ),
]
BorderFillOption = Annotated[
    BorderFill, typer.Option("--border-fill", help="What the border is made of.")
]
DetectorName = Annotated[
    str, typer.Option("--detector", help="yunet, an installed one, or module:callable.")
]
DetectorModel = Annotated[
    Path | None,
    typer.Option(
        "--detector-model",
        envvar="FACEBENCH_DETECTOR_MODEL",
        help="The detector's model file; for yunet the *yunet*.onnx in WEIGHTS_DIR if left out.",
    ),
]

DEFAULT_MARGIN = 0.2
DEFAULT_THRESHOLD = 0.7
DEFAULT_PX = 100


def crop_options(
    margin: float,
    size_px: int,
    fit: Fit,
    faces: Choice,
    threshold: float,
    border: float,
    border_fill: BorderFill,
) -> "CropOptions":
    """Put the options together; raise DataError where one is out of range."""
    from benchmark.data.crop import CropOptions

    return CropOptions(
        margin=margin,
        size_px=size_px,
        fit=fit,
        faces=faces,
        threshold=threshold,
        border=border,
        border_fill=border_fill,
    )


def detector_choice(
    name: str, model: Path | None, weights_dir: Path | None, data_dir: Path
) -> "DetectorChoice":
    """Say which detector is meant; it is loaded where it works."""
    from benchmark.data.crop import DetectorChoice

    return DetectorChoice(name, model, weights_dir or data_dir / "weights")
