"""Synthetic faces with an empty folder to run them in."""

from pathlib import Path

import pytest

from benchmark.data.dataset import FaceSet
from tests.runs.small import Place


@pytest.fixture
def place(drawn_faces: FaceSet, tmp_path: Path) -> Place:
    return Place(drawn_faces, tmp_path)
