"""Which input and which pooling do SqueezeNet 1.1's ImageNet weights want? Asked of faces.

Logistic regression on the frozen backbone's pooled features. First: fitted on training faces,
scored on the validation faces of the leak-free split. Then, because 2,300 faces cannot tell a point
apart: five cluster-whole folds of training and validation faces together, each scored by a fit on
the other four. Test faces are not read. The answer is in docs/notes/channel_order.md:

    python docs/measurements/channel_order.py --faces data/utkface-100 --weights FILE.h5
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmark.data.dataset import open_faces
from benchmark.data.splits import parts_of
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.models.network import build_network
from benchmark.models.weight_manifest import CAFFE, IMAGENET, UNIT, Preprocessing
from benchmark.models.weights import LoadedWeights, add_file, load
from benchmark.tasks import TASKS, TaskName

Features = npt.NDArray[np.float32]
Labels = dict[TaskName, npt.NDArray[np.int64]]
Rows = npt.NDArray[np.int64]

INPUTS: dict[str, Preprocessing] = {
    "BGR 0-255 minus mean": CAFFE,
    "RGB 0-255 minus mean": CAFFE.swapped(),
    "RGB /255, mean, std": IMAGENET,
    "BGR /255, mean, std": IMAGENET.swapped(),
    "RGB /255 (the study's)": UNIT,
}
REGULARISATION = 0.01
"""scikit-learn's C on standardised features; the same for every row, not tuned."""
N_FITTED = 4000
"""Faces that each regression is fitted on."""
N_RANDOM = 3
"""Random backbones, one a seed."""


def experiment(weights: str) -> Experiment:
    """Define the network whose features are read; its head is not used."""
    return Experiment(
        name=f"mtl-squeezenet1_1-{weights}-frozen",
        asks="Which input do the weights want?",
        backbone=Backbone("squeezenet1_1", weights=weights, trainable_stages=0),
        head=Head(),
        recipe=Recipe(learning_rate=1e-3),
    )


def features(
    pixels: npt.NDArray[np.uint8], weights: LoadedWeights | None, seed: int = 0
) -> Features:
    """Give pooled features (n, 512) of pictures (n, h, w, 3), RGB."""
    network = build_network(experiment(weights.file.source if weights else "none"), weights, seed)
    network.eval().to(memory_format=torch.channels_last)
    pieces = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 256):
            images = torch.from_numpy(pixels[start : start + 256]).permute(0, 3, 1, 2)
            pieces.append(network.features(images))
    return torch.cat(pieces).numpy()


def arms(weights: LoadedWeights) -> Iterator[tuple[str, str, LoadedWeights | None, int]]:
    """Give (input, pooling, weights, seed): every input and pooling, then random backbones."""
    for name, fed in INPUTS.items():
        for pooling in ("floor", "ceil"):
            options = {"pooling": pooling}
            file = dataclasses.replace(weights.file, preprocessing=fed, options=options)
            yield name, pooling, weights._replace(file=file), 0
    for seed in range(N_RANDOM):
        yield f"random backbone, seed {seed}", "as built", None, seed


def is_right(inputs: Features, labels: Labels, fitted: Rows, scored: Rows) -> npt.NDArray[np.bool_]:
    """Fit each task on rows `fitted`; tell which of `scored` it reads rightly: (tasks, n)."""
    answers = []
    for task in TASKS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=2000))
        model.fit(inputs[fitted], labels[task][fitted])
        answers.append(model.predict(inputs[scored]) == labels[task][scored])
    return np.stack(answers)


def cross_validated(
    inputs: Features, labels: Labels, clusters: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Score every face by a fit on faces of other folds, which share no cluster: (tasks, n)."""
    right = np.zeros((len(TASKS), len(inputs)), dtype=bool)
    generator = np.random.default_rng(0)
    for others, scored in GroupKFold(5).split(inputs, groups=clusters):
        fitted = generator.permutation(others)[:N_FITTED]
        right[:, scored] = is_right(inputs, labels, fitted, scored)
    return right


def percent(right: npt.NDArray[np.bool_]) -> str:
    """Write accuracies per task as cells of a table."""
    return " | ".join(f"{100 * share:.1f}" for share in right.mean(1))


def difference(right: npt.NDArray[np.bool_], first: npt.NDArray[np.bool_]) -> str:
    """Write mean accuracy minus the first row's, in points, with a paired 95 % interval."""
    per_face = right.mean(0) - first.mean(0)
    half = 1.96 * per_face.std() / np.sqrt(len(per_face))
    return f"{100 * per_face.mean():+.2f} ± {100 * half:.2f}"


def main() -> None:
    """Print one Markdown row per input and pooling."""
    parser = argparse.ArgumentParser(description="Measure what SqueezeNet's weights want.")
    parser.add_argument("--faces", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--weights", type=Path, required=True, help="a published weight file")
    arguments = parser.parse_args()
    faces = open_faces(arguments.faces)
    parts = parts_of(faces, None)
    rows = np.concatenate([parts["train"], parts["val"]])
    n_train = len(parts["train"])
    pixels = faces.pixels()[rows]
    labels = {task: faces.table[task].to_numpy(dtype=np.int64)[rows] for task in TASKS}
    clusters = faces.table["cluster"].to_numpy(dtype=np.int64)[rows]
    fitted = np.random.default_rng(0).permutation(n_train)[:N_FITTED]
    validation = np.arange(n_train, len(rows))
    with tempfile.TemporaryDirectory() as folder:
        weights = load(add_file(arguments.weights, Path(folder)))
    print(f"torch {torch.__version__}, split digest {faces.split_digest[:12]}")
    print(f"{len(fitted)} fitted, {len(validation)} validation faces, {len(rows)} in five folds\n")
    print("| input | pooling | validation faces: age group | gender | race |", end="")
    print(" five folds: age group | gender | race | mean, against the first row |")
    print("|---|---|---|---|---|---|---|---|---|")
    first = None
    for name, pooling, arm, seed in arms(weights):
        inputs = features(pixels, arm, seed)
        right = cross_validated(inputs, labels, clusters)
        first = right if first is None else first
        on_validation = percent(is_right(inputs, labels, fitted, validation))
        cells = f"{on_validation} | {percent(right)} | {difference(right, first)}"
        print(f"| {name} | {pooling} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
