"""`facebench data crop`: from photographs to faces that the benchmark can read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.crop_options import (
    DEFAULT_MARGIN,
    DEFAULT_PX,
    DEFAULT_THRESHOLD,
    Border,
    BorderFillOption,
    DetectorModel,
    DetectorName,
    Faces,
    FitOption,
    Margin,
    Threshold,
    crop_options,
    detector_choice,
)
from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, Quiet, WeightsDir
from benchmark.cli.output import Answer, ExitCode, out, progress_bar, say_error, speaking
from benchmark.errors import DataError

if TYPE_CHECKING:
    from benchmark.data.crop_folder import CropReport

EXAMPLES = """
Examples:

  facebench data crop holiday --detector-model yunet.onnx

  facebench data crop photos.zip --out faces --faces all --fit square --image-px 224

  facebench data crop UTKFace.tar.gz --border 0.25 && facebench data prepare UTKFace-crops
"""

SHOWN = 10
"""Pictures without a crop that are listed on the screen; crops.csv has them all."""


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
    border: Border = 0.0,
    border_fill: BorderFillOption = "replicate",
    file_format: Annotated[
        Literal["png", "jpeg"],
        typer.Option("--format", help="png loses nothing; jpeg takes a quarter of the space."),
    ] = "png",
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: WeightsDir = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the faces in photographs and cut them out, as the study did: box, margin, resize.

    crops.csv says of every picture what was found, or why nothing. Stopped, the same command goes
    on. Exits with 1 if any picture has no crop; the others are done.
    """
    finding = None
    with speaking("data crop", as_json=as_json) as answer:
        from benchmark.data.crop_folder import Cropper, crop_folder

        cropper = Cropper(
            crop_options(margin, image_px, fit, faces, threshold, border, border_fill),
            detector_choice(detector, detector_model, weights_dir, data_dir),
            file_format,
        )
        with progress_bar(quiet=quiet or as_json) as bar:
            task = bar.add_task("cropping", total=None)
            report = crop_folder(
                source,
                out_dir or _default_folder(source),
                cropper,
                lambda _, done, total: bar.update(task, completed=done, total=total),
            )
        finding = _told(report, answer)
        if not as_json and not quiet:
            _print(report)
    if finding is not None:
        if not as_json:
            say_error(finding)
        raise typer.Exit(ExitCode.FINDINGS)


def _default_folder(source: Path) -> Path:
    name = source.resolve().name
    for ending in (".tar.gz", ".tgz", ".tar", ".zip"):
        name = name.removesuffix(ending)
    return Path(f"{name}-crops")


def _told(report: "CropReport", answer: Answer) -> DataError | None:
    """Fill in the machine's answer; give the finding, if there is one."""
    counts, without = report.counts(), report.without_crop()
    answer.data = {
        "folder": str(report.folder),
        "detector": report.detector,
        "pictures": sum(counts.values()),
        "new": report.n_new,
        "not_pictures": report.n_not_pictures,
        "outcomes": counts,
        "crops": int((report.table["outcome"] == "cropped").sum()),
        "without_crop": without[["file", "outcome", "reason"]].to_dict("records"),
    }
    if without.empty:
        return None
    first = without.iloc[0]
    finding = DataError(
        f"{len(without)} of {sum(counts.values())} pictures have no crop; "
        f"{first['file']}: {first['reason']}",
        source=str(report.folder / "crops.csv"),
        fix="The others are done; a lower --threshold or a --border may find more",
    )
    answer.errors.append(finding)
    return finding


def _print(report: "CropReport") -> None:
    counts = report.counts()
    total = sum(counts.values())
    lines = Table.grid(padding=(0, 2))
    lines.add_row("pictures", f"{total:,}", "")
    for name, n in counts.items():
        lines.add_row(f"  {name}", f"{n:,}", f"{100 * n / total:.2f} %")
    several = report.table.drop_duplicates("file")["faces_seen"] > 1
    lines.add_row("  with several faces", f"{int(several.sum()):,}", "")
    lines.add_row("files that are no pictures", f"{report.n_not_pictures:,}", "")
    done_before = total - report.n_new
    if done_before:
        lines.add_row("done before", f"{done_before:,}", "")
    out.print(f"[bold]{escape(str(report.folder))}[/], by {report.detector}", soft_wrap=True)
    out.print(lines)
    rows: Sequence[dict[str, Any]] = report.without_crop().to_dict("records")  # type: ignore[assignment]
    for row in rows[:SHOWN]:
        out.print(f"[yellow]–[/] {escape(str(row['file']))}: {escape(str(row['reason']))}")
    if len(rows) > SHOWN:
        out.print(f"  and {len(rows) - SHOWN:,} more")
