"""Shared by all tests: no network, no telemetry, and where the real data are, if they are."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from playwright.sync_api import Browser

    from benchmark.data.dataset import FaceSet
    from tests.made_runs import RunBuilder

# Before anything imports mlflow, timm or torch.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.setdefault("OMP_NUM_THREADS", "2")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FACEBENCH_TEST_SHARED", ROOT.parent / "shared"))


@pytest.fixture
def runs(tmp_path: Path) -> "RunBuilder":
    """Give an empty folder of runs."""
    from tests.made_runs import RunBuilder

    return RunBuilder(tmp_path / "mlruns")


@pytest.fixture(scope="session", autouse=True)
def _pictures_drawn_once() -> Iterator[None]:
    """Draw each of a run's figures once, coarsely: they take longer than its training.

    Later runs get copies. `tests/evaluation/test_figures.py` draws them as they are.
    """
    from benchmark.evaluation import figures

    drawn: dict[str, bytes] = {}
    write_png = figures.write_png

    def write_once(path: Path, figure: "Figure") -> None:
        if path.name in drawn:
            path.write_bytes(drawn[path.name])
        else:
            write_png(path, figure)
            drawn[path.name] = path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 40)
        patch.setattr(figures, "write_png", write_once)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what needs a browser to `make test-all`, what starts a cluster to where it is asked."""
    of_cluster = pytest.mark.skip(reason="starts Ray, PostgreSQL and MLflow: make cluster-test")
    for item in items:
        if item.get_closest_marker("cluster") and config.option.markexpr != "cluster":
            item.add_marker(of_cluster)
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


def shared_file(*parts: str) -> Path:
    """Find a real file that lies beside the checkout; skip the test where it does not."""
    path = SHARED.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"needs {'/'.join(parts)} in ../shared or $FACEBENCH_TEST_SHARED")
    return path


@pytest.fixture(scope="session")
def drawn_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 240 synthetic faces of 32 px, made once."""
    from benchmark.data.dataset import STORED_NAME, store_faces
    from benchmark.data.drawn import draw_faces

    data_dir = tmp_path_factory.mktemp("data")
    drawn = draw_faces(240, seed=3, image_px=32)
    store_faces(drawn.images, drawn.labels, name=STORED_NAME, drawn=True, data_dir=data_dir)
    return data_dir


@pytest.fixture(scope="session")
def drawn_faces(drawn_data_dir: Path) -> "FaceSet":
    """The data set in `drawn_data_dir`."""
    from benchmark.data.dataset import choose_dataset

    return choose_dataset(drawn_data_dir, "drawn")


@pytest.fixture(scope="session")
def trained_runs_dir(tmp_path_factory: pytest.TempPathFactory, drawn_faces: "FaceSet") -> Path:
    """A runs folder with one finished run of a tiny network on `drawn_faces`; not to be written.

    The network is as it started: what it says is stored by the usual code, and no better for it.
    """
    import torch

    from benchmark.data.batches import FaceBatches
    from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
    from benchmark.files import write_json
    from benchmark.models.network import build_network
    from benchmark.runs.folder import begin, parts_for, save_weights, store_predictions
    from benchmark.runs.plan import Settings, plan_run
    from benchmark.training.device import Device
    from benchmark.training.steps import in_fp32

    experiment = Experiment(
        "mtl-cnn-none-full-tiny", "What does it say of a face?", Backbone("cnn", input_px=32),
        Head(hidden_units=16), Recipe(1e-3, max_epochs=2),
    )  # fmt: skip
    runs_dir = tmp_path_factory.mktemp("trained") / "mlruns"
    settings = Settings(runs_dir, runs_dir / "weights", Device(torch.device("cpu"), "fp32"))
    plan = plan_run(experiment, 0, drawn_faces, settings)
    parts, network = parts_for(plan), build_network(experiment, None, 0)
    faces = FaceBatches.on_device(drawn_faces.pixels(), drawn_faces.table, torch.device("cpu"))
    begin(plan, plan.about(settings.device, network, parts.counts()))
    forward = in_fp32(network, faces)
    store_predictions(
        plan, parts, lambda rows: forward.probabilities(torch.from_numpy(rows)), settings
    )
    save_weights(plan.folder / "model.safetensors", network, experiment, faces_px=32)
    fitted = {"temperature": 1.5, "temperature_is_at_an_end": False}
    calibration = {"schema": 1, "tasks": dict.fromkeys(experiment.head.tasks, fitted)}
    write_json(plan.folder / "calibration.json", calibration)
    write_json(plan.folder / "done.json", {"schema": 1, "test_was_read": True})
    return runs_dir


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A headless Chromium for all tests of a process, which has room for one; else they skip."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium (on Debian)")
    with playwright.sync_playwright() as started:
        # The sandbox needs rights that containers often lack; the page is our own.
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
