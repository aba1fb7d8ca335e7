"""Do predict, evaluation, ONNX and the stored predictions agree on real faces? How fast are they?

And in how many of them, padded by 25 %, does YuNet see a face? Rates are per second of processor
time of this thread, so that other work on the machine does not change them. The answers are in
docs/notes/timings.md:

    python docs/measurements/inference.py --run ID --pictures FOLDER --faces 2000
    python docs/measurements/inference.py --detector yunet.onnx --pictures FOLDER --faces 2000
    python docs/measurements/inference.py --detector yunet.onnx --pictures FOLDER --large LARGE

The last pastes faces into pictures of two megapixels and keeps these in the folder LARGE, so that
`time facebench data crop LARGE` can be measured too.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from benchmark.data.batches import FaceBatches
from benchmark.data.crop import CropOptions, DetectorChoice, crop_picture, load_detector
from benchmark.data.dataset import open_faces
from benchmark.data.pictures import read_upright
from benchmark.evaluation.predictions import probability_columns, read_predictions
from benchmark.inference import export
from benchmark.inference.load import Pixels, TrainedNetwork, trained_run
from benchmark.inference.predict import Predictor
from benchmark.training.device import choose_device
from benchmark.training.steps import in_fp32


def ask_four_ways(run: str, runs_dir: Path, data_dir: Path, pictures: Path, n_faces: int) -> None:
    """Compare on `n_faces` of the validation and test faces, whose files lie in `pictures`."""
    network = trained_run(run, runs_dir)
    assert network.record is not None
    stored = read_predictions(network.record.predictions_path).drop_duplicates("file")
    stored = stored.sample(min(n_faces, len(stored)), random_state=0)
    faces = open_faces(data_dir / network.record.about["dataset"]["name"])
    row_of = {file: row for row, file in enumerate(faces.table["file"])}
    rows = np.array([row_of[file] for file in stored["file"]])
    path_of = {path.name: path for path in pictures.rglob("*") if path.is_file()}

    began, at = time.process_time(), time.perf_counter()
    reader = Predictor(network, choose_device("cpu", "fp32"))
    predicted = reader.read([path_of[file] for file in stored["file"]])
    seconds, clock = time.process_time() - began, time.perf_counter() - at
    print(
        f"predict: {len(rows) / seconds:.0f} faces a second of processor, "
        f"{len(rows) / clock:.0f} by the clock"
    )
    began = time.process_time()
    on_device = FaceBatches.on_device(faces.pixels(), faces.table, torch.device("cpu"))
    evaluated = in_fp32(network.network, on_device).probabilities(torch.from_numpy(rows))
    rate = len(rows) / (time.process_time() - began)
    print(f"evaluation alone: {rate:.0f} faces a second of processor")
    exported = _onnx_answers(network, np.asarray(faces.pixels()[rows]))
    for task in network.tasks:
        columns = probability_columns(task)
        ways = [stored[columns].to_numpy(), predicted[columns].to_numpy()]
        ways += [evaluated[task], exported[task]]
        worst = max(float(np.abs(one - other).max()) for one in ways for other in ways)
        differ = sum(int((ways[0].argmax(1) != way.argmax(1)).sum()) for way in ways)
        print(f"{task}: largest difference among the four {worst:.2g}, labels that differ {differ}")


def _onnx_answers(network: TrainedNetwork, pixels: Pixels) -> dict[str, np.ndarray]:
    path = Path(tempfile.mkdtemp()) / "measured.onnx"
    export.export(network, "onnx", path)
    apply = export.onnx_runtime(path, network.tasks)
    pieces = [apply(pixels[begin : begin + 256]) for begin in range(0, len(pixels), 256)]
    path.unlink()
    return {task: np.concatenate([piece[task] for piece in pieces]) for task in network.tasks}


def share_found(model: Path, pictures: Path, n_pictures: int) -> None:
    """Count pictures in which YuNet sees a face."""
    detector = load_detector(DetectorChoice(model=model))
    paths = sorted(pictures.rglob("*.jpg"))
    random.Random(0).shuffle(paths)
    contents = [path.read_bytes() for path in paths[:n_pictures]]
    began, found, several = time.process_time(), 0, 0
    for content in contents:
        cropped = crop_picture(read_upright(content)[0], detector, CropOptions())
        found, several = found + len(cropped.crops), several + (cropped.faces_seen > 1)
    rate = len(contents) / (time.process_time() - began)
    share = 100 * found / len(contents)
    print(
        f"a face in {found} of {len(contents)}, {share:.2f} %; several in {several}; "
        f"{rate:.0f} pictures a second of processor"
    )


def rate_of_large(model: Path, pictures: Path, large: Path, n_pictures: int) -> None:
    """Paste faces into pictures of two megapixels, keep them in `large`, and time their crops."""
    detector = load_detector(DetectorChoice(model=model))
    paths = sorted(pictures.rglob("*.jpg"))
    drawn = random.Random(0)
    drawn.shuffle(paths)
    large.mkdir(parents=True, exist_ok=True)
    for path in paths[:n_pictures]:
        with Image.open(path) as face:
            canvas = face.convert("RGB").resize((1_632, 1_225)).filter(ImageFilter.GaussianBlur(40))
            place = (drawn.randrange(1_632 - 300), drawn.randrange(1_225 - 300))
            canvas.paste(face.convert("RGB").resize((300, 300)), place)
        canvas.save(large / path.name, quality=90)
    contents = [path.read_bytes() for path in sorted(large.glob("*.jpg"))]
    began, found = time.process_time(), 0
    for content in contents:
        found += len(crop_picture(read_upright(content)[0], detector, CropOptions()).crops)
    rate = len(contents) / (time.process_time() - began)
    print(
        f"two megapixels: a face in {found} of {len(contents)}; {rate:.0f} pictures a second of "
        "processor"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run")
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--large", type=Path)
    parser.add_argument("--runs-dir", type=Path, default=Path("mlruns"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    asked = parser.parse_args()
    if asked.run:
        ask_four_ways(asked.run, asked.runs_dir, asked.data_dir, asked.pictures, asked.faces)
    if asked.detector and asked.large:
        rate_of_large(asked.detector, asked.pictures, asked.large, asked.faces)
    elif asked.detector:
        share_found(asked.detector, asked.pictures, asked.faces)
