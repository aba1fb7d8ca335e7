"""`facebench data crop`: from photographs to faces that the benchmark can read.

The options of finding and cutting faces are here for `predict`, too.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, WeightsDir
from benchmark.cli.output import ExitCode, out, print_table, say_error, speaking, watching
from benchmark.errors import DataError
from benchmark.reporting.tables import Table

SHOWN = 10
"""Files that are listed on the screen; crops.csv has every picture."""

# As benchmark.data.crop has them; here so that --help loads no picture library.
DEFAULT_MARGIN = 0.2
DEFAULT_THRESHOLD = 0.7
DEFAULT_PX = 100


def _option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Cropping", **more)


Margin = Annotated[float, _option("Share of the box's width and height added on each side.")]
FitOption = Annotated[
    Literal["stretch", "square"],
    _option("Stretch the box to a square, as the study did, or widen it to one.", "--fit"),
]
Faces = Annotated[
    Literal["largest", "central", "all"], _option("Which, where there are several.", "--faces")
]
Threshold = Annotated[float, _option("Faces of lower scores are not seen; 0.01 to 1.")]
DetectorName = Annotated[str, _option("yunet, or module:callable.", "--detector")]
DetectorModel = Annotated[
    Path | None,
    _option(
        "The detector's model file; for yunet the *yunet*.onnx in WEIGHTS_DIR if left out.",
        "--detector-model",
        envvar="FACEBENCH_DETECTOR_MODEL",
    ),
]


def crop(
    source: Annotated[Path, typer.Argument(help="Folder, .tar, .tar.gz or .zip of photographs.")],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Where the faces go; SOURCE-crops here if left out."),
    ] = None,
    image_px: Annotated[int, typer.Option(help="Side of the faces in pixels.")] = DEFAULT_PX,
    margin: Margin = DEFAULT_MARGIN,
    fit: FitOption = "stretch",
    faces: Faces = "largest",
    threshold: Threshold = DEFAULT_THRESHOLD,
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: WeightsDir = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Find the faces in photographs and cut them out, as the study did: box, margin, resize.

    crops.csv says of every picture what was found, or why nothing. The same command resumes what
    was stopped, and does what is new or changed. Exits with 1 if any picture has no crop.

    Examples:
      facebench data crop holiday --detector-model yunet.onnx
      facebench data crop photos.zip --out faces --faces all --fit square --image-px 224
      facebench data crop UTKFace.tar.gz && facebench data prepare UTKFace-crops
    """
    with speaking("data crop", as_json=as_json) as answer:
        from benchmark.data.crop import (
            OUTCOMES,
            CropOptions,
            Cropper,
            DetectorChoice,
            crop_folder,
            load_detector,
        )

        cropper = Cropper(
            CropOptions(margin, image_px, fit, faces, threshold),
            DetectorChoice(detector, detector_model, weights_dir or data_dir / "weights"),
            as_png=True,
        )
        name = source.resolve().name
        for ending in (".tar.gz", ".tgz", ".tar", ".zip"):
            name = name.removesuffix(ending)
        folder = out_dir or Path(f"{name}-crops")
        with watching(quiet=as_json) as watch:
            table, others, n_new = crop_folder(source, folder, cropper, watch)
        of_picture = table.drop_duplicates("file")
        counts = {name: int((of_picture["outcome"] == name).sum()) for name in OUTCOMES}
        without = table[table["outcome"] != "cropped"][["file", "outcome", "reason"]]
        answer.data = {
            "folder": str(folder),
            "detector": load_detector(cropper.detector).name,
            "pictures": len(of_picture),
            "new": n_new,
            "not_pictures": len(others),
            "passed_over": others,
            "outcomes": counts,
            "crops": len(table) - len(without),
            "without_crop": without.to_dict("records"),
        }
        if others:
            what = "files are no pictures by their names, and were passed over"
            answer.warnings.append(f"{len(others):,} {what}: {_some(others)}.")
        if missing := [f"{row['file']}: {row['reason']}" for row in answer.data["without_crop"]]:
            answer.errors.append(
                DataError(
                    f"{len(missing)} of {len(of_picture)} pictures have no crop; {_some(missing)}",
                    source=str(folder / "crops.csv"),
                    fix="The others are done; a lower --threshold may find more",
                )
            )
        if not as_json:
            several = int((of_picture["faces_seen"] > 1).sum())
            numbers = {"pictures": len(of_picture), "done before": len(of_picture) - n_new}
            numbers |= counts | {"with several faces": several}
            out.print(
                f"[bold]{escape(str(folder))}[/], by {answer.data['detector']}", soft_wrap=True
            )
            print_table(Table.of(["", ""], [(k, f"{n:,}") for k, n in numbers.items()]))
            for finding in answer.errors:
                say_error(finding)
    if answer.errors:
        raise typer.Exit(ExitCode.FINDINGS)


def _some(lines: list[str]) -> str:
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
