"""Data sets whose labels are written down here, so that every count can be told by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.dataset import FaceSet, store_faces
from benchmark.data.labels import age_group_of
from benchmark.data.prepare import prepare
from tests.faces.sources import folder_of, jpeg


def faces_aged(tmp_path: Path, ages: list[int]) -> FaceSet:
    """A data set of men who are White, of these ages, no two pictures alike."""
    random = np.random.default_rng(5)
    images = random.integers(0, 256, (len(ages), 24, 24, 3), dtype=np.uint8)
    labels = pd.DataFrame(
        {
            "file": [f"{age}_0_0_{i:04d}.jpg" for i, age in enumerate(ages)],
            "age": ages,
            "age_group": [age_group_of(age) for age in ages],
            "gender": 0,
            "race": 0,
        }
    )
    return store_faces(images, labels, name="aged", data_dir=tmp_path)


@pytest.fixture
def without_ages(tmp_path: Path) -> FaceSet:
    """Forty faces from a table that tells gender and, of half of them, race."""
    folder = folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(40)})
    rows = [f"p{i}.jpg,{'mf'[i % 2]},{'White' if i < 20 else ''}" for i in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,gender,race", *rows]))
    labels = [tmp_path / "labels.csv"]
    return prepare(folder, tmp_path / "data", image_px=24, labels=labels, name="photos").faces
