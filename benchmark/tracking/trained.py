"""A run's network as a model of MLflow: the safetensors file, and what loads it.

No pickled code: `mlflow.pytorch.log_model` writes a pickle, or a graph that cannot be trained on.
What is written here is loaded by `mlflow.pyfunc.load_model`, which calls inference.load, and by
benchmark.inference.load alone where there is no MLflow.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmark.record import RunRecord
from benchmark.runs.notes import run_params, run_tags

LOADER: Final = "benchmark.inference.load"
WEIGHTS_FILE: Final = "model.safetensors"
NEEDED: Final = ("facebench", "torch", "torchvision", "timm", "numpy", "pandas")


def model_name(record: RunRecord) -> str:
    """Name a run's model as lists and `runs:/ID/NAME` have it."""
    return f"{record.experiment_name}-seed-{record.seed}"


def log_trained(client: Any, run_id: str, record: RunRecord, *, again: bool) -> str | None:
    """Log a finished run's network, once; give the model's id, None where no weights were kept.

    again: the run was trained anew since: its older model is replaced.
    """
    from mlflow.entities import LoggedModelOutput

    run, tags = client.get_run(run_id), run_tags(record)
    logged = [item.model_id for item in (run.outputs.model_outputs if run.outputs else ())]
    if logged and not again:
        return str(logged[-1])
    if not (record.folder / WEIGHTS_FILE).is_file():
        return None
    for model_id in logged:
        client.delete_logged_model(model_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name=model_name(record),
        source_run_id=run_id,
        # The record's own: the run's tags in MLflow may have been left out, changed or removed.
        tags={key: tags[key] for key in ("architecture", "weights", "tasks", "faces")},
        params={name: str(value) for name, value in run_params(record.about).items()},
        model_type="face classifier",
    )
    with tempfile.TemporaryDirectory() as scratch:
        _write_model(Path(scratch), record, run_id, str(model.model_id))
        client.log_model_artifacts(model.model_id, scratch)
    client.finalize_logged_model(model.model_id, "READY")
    step = int(record.done["selected_epoch"])
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


def _write_model(folder: Path, record: RunRecord, run_id: str, model_id: str) -> None:
    """Lay out what MLflow calls a model: MLmodel, what it needs, and the tensors."""
    from mlflow.models import Model

    versions = record.about["versions"]
    model = Model(run_id=run_id, model_id=model_id)
    model.add_flavor(
        "python_function",
        loader_module=LOADER,
        data=WEIGHTS_FILE,
        python_version=versions.get("python", ""),
    )
    model.save(str(folder / "MLmodel"))
    needed = [f"{name}=={versions[name]}" for name in NEEDED if name in versions]
    (folder / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")
    shutil.copyfile(record.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
