"""Shared by all tests: no network, no telemetry, and where the real data are, if they are."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmark.faces.store import FaceSet

# Before anything imports mlflow, timm or torch.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.setdefault("OMP_NUM_THREADS", "2")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FACEBENCH_TEST_SHARED", ROOT.parent / "shared"))


def shared_file(*parts: str) -> Path:
    """Find a real file that lies beside the checkout; skip the test where it does not."""
    path = SHARED.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"needs {'/'.join(parts)} in ../shared or $FACEBENCH_TEST_SHARED")
    return path


@pytest.fixture(scope="session")
def drawn_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 240 drawn faces of 32 px, made once."""
    from benchmark.faces.choice import STORED_NAME
    from benchmark.faces.drawn import draw_faces
    from benchmark.faces.store import store_faces

    data_dir = tmp_path_factory.mktemp("data")
    drawn = draw_faces(240, seed=3, image_px=32)
    store_faces(drawn.images, drawn.labels, name=STORED_NAME, drawn=True, data_dir=data_dir)
    return data_dir


@pytest.fixture(scope="session")
def drawn_faces(drawn_data_dir: Path) -> "FaceSet":
    """The data set in `drawn_data_dir`."""
    from benchmark.faces.choice import choose_dataset

    return choose_dataset(drawn_data_dir)
