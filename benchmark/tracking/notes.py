"""A run in words, tags, parameters and numbers, for MLflow; Markdown that no name can break."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pandas as pd

from benchmark.evaluation.predictions import LIMITS_DRAWN, limits_of
from benchmark.evaluation.red_flags import flag_state, warning
from benchmark.experiment.parts import flattened
from benchmark.record import RunRecord
from benchmark.tasks import TASK_TITLES, TASKS

NOTHING: Final = "–"
ESCAPES: Final = str.maketrans(
    {letter: f"\\{letter}" for letter in "\\`*_{}[]#|~!"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
"""What Markdown, or a table in it, takes for more than a letter. Entities, since not every reader
of Markdown takes \\< as a letter: MLflow's does not."""

IDENTITY_TAG: Final = "facebench.identity"
ATTEMPT_TAG: Final = "facebench.attempt"
TRAINING_TAG: Final = "facebench.training"
"""Tells runs of one identity apart: a folder removed and trained again is another training."""
OF_SEARCHES: Final = (
    "Searches for recipes. Each is a run whose trials are nested beneath it; none was evaluated "
    "on the test set."
)
COSTS: Final = ("parameters", "gmacs", "images_per_second", "peak_memory_mib", "seconds")
OF_A_TASK: Final = ("accuracy", "macro_f1", "worst_gender_race", "gap_gender_race")
PARTS: Final = ("backbone", "head", "recipe", "protocol", "subset")
FIGURES: Final = {"confusion.png": "Confusion matrices", "subgroups.png": "Subgroups",
                  "curves.png": "Learning curves"}  # fmt: skip


def plain(text: Any) -> str:
    """Write a name or value so that Markdown shows it as it is, on one line; for a sentence with
    commands in it, `reporting.tables.markdown_text`."""
    return " ".join(str(text).split()).translate(ESCAPES)


def code(text: Any) -> str:
    """Write a name or digest as code, in a table or out of one."""
    words = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{words}`" if words else NOTHING


def rate(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Write a rate in [0, 1] as percent, with its interval where it has one."""
    if value is None or value != value:
        return NOTHING
    if low is None or high is None or low != low or high != high:
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def data_note(dataset: Mapping[str, Any]) -> str:
    """Describe a data set; `dataset` is the part of `experiment.json` by that name."""
    counts = dataset["counts"]
    kind = "**Synthetic faces**: emblems, not people" if dataset["drawn"] else "Photographed faces"
    return (
        f"{kind}. Data set {code(dataset['name'])}: {counts['train']:,} training, "
        f"{counts['val']:,} validation and {counts['test']:,} test faces; split "
        f"{plain(dataset['split_version'])}, digest `{dataset['split_digest'][:12]}`.\n\n"
        "Each run is one experiment with one seed. Filter by tags: `architecture`, `weights`, "
        "`tasks`, `trainable`, `seed`. Runs are ranked by `val/combined`, the "
        "weighted validation accuracy, never by test.\n\n" + "\n\n".join(limits_of(dataset))
    )


def run_note(record: RunRecord, page: Callable[[str], str], model: str) -> str:
    """Describe a run: its question, its network, how it ended.

    page: from a figure's file name to the page that shows it. model: what
    `mlflow.pyfunc.load_model` takes; empty where the weights were not kept.
    """
    about, done = record.about, record.state == "done"
    definition, dataset = about["experiment"], about["dataset"]
    backbone, total = definition["backbone"], about["parameters"]["total"]
    # MLflow folds a note to 100 pixels, and of these only the first 40 can be clicked on.
    links = [f"[{title}]({page(name)})" for name, title in FIGURES.items()
             if done and (record.folder / name).is_file()]  # fmt: skip
    tasks = " and ".join(TASK_TITLES[task] for task in TASKS if task in definition["head"]["tasks"])
    start = "random weights" if backbone["weights"] == "none" else f"{backbone['weights']} weights"
    depth = {"all": "fully trained", 0: "frozen"}.get(
        backbone["trainable_stages"], f"deepest {backbone['trainable_stages']} stage(s) trained"
    )
    paragraphs = [
        " · ".join(links),
        f"**{plain(definition['asks'])}**",
        f"`{backbone['architecture']}` from {start}, backbone {depth}, predicts {tasks}: "
        f"{total:,} parameters, {about['parameters']['trainable']:,} of them trained. Seed "
        f"{about['seed']}, protocol {plain(about['protocol_name'])}, {plain(about['device'])}, "
        f"{about['precision']}.",
        *(LIMITS_DRAWN if dataset["drawn"] else ()),
    ]
    if about["leaky"]:
        paragraphs.append("**LEAKY**: test faces were seen in training.")
    if about["ad_hoc"]:
        paragraphs.append("Ad hoc: changed on the command line, kept off leaderboards.")
    if record.state == "failed":
        # MLflow cuts a note after 8,000 letters.
        trace = str(record.failed.get("traceback", "")).replace("```", "'''").splitlines()
        why = plain(str(record.failed.get("why", ""))[:3_000])
        again = f"`facebench run {record.experiment_name} --seeds {record.seed}`"
        kept = "\n".join(trace[-30:])[-3_000:]
        paragraphs += [f"**Failed**: {why} {again} tries again.", f"```\n{kept}\n```"]
    if done:
        epoch, name = record.done["selected_epoch"], record.identity[:12]
        flagged = warning({name: flag_state(record)}, name)
        weights = f"Weights of epoch {epoch} of {record.done['epochs']}, selected on validation."
        paragraphs += [weights, f"**{flagged}**" if flagged else ""]
    if done and model:
        paragraphs.append(
            "```python\n"
            f'model = mlflow.pyfunc.load_model("{model}")  # tensors alone, no pickled code\n'
            "model.predict(faces)  # uint8 (n, px, px, 3), RGB -> probabilities per task\n```"
        )
    paragraphs += limits_of(dataset)[bool(dataset["drawn"]) :]
    return "\n\n".join(filter(None, paragraphs))


def run_name(record: RunRecord) -> str:
    """Name a run as lists show it; what leaks says so first."""
    leaky = "LEAKY · " if record.about["leaky"] else ""
    return f"{leaky}{record.experiment_name} · seed {record.seed}"


def run_tags(record: RunRecord) -> dict[str, str]:
    """Give a run's tags, by which runs are filtered."""
    about = record.about
    definition, dataset = about["experiment"], about["dataset"]
    backbone = definition["backbone"]
    return {
        IDENTITY_TAG: record.identity, ATTEMPT_TAG: str(about.get("attempt", 1)),
        **({TRAINING_TAG: about["training"]} if "training" in about else {}),
        "experiment": definition["name"], "architecture": backbone["architecture"],
        "weights": backbone["weights"], "weights_sha256": about["weights"]["sha256"] or "none",
        "tasks": "+".join(tasks_of(record)),
        "trainable": str(backbone["trainable_stages"]),
        "conditioning": definition["head"]["conditioning"],
        "protocol": ("LEAKY " if about["leaky"] else "") + str(about["protocol_name"]),
        "faces": "drawn" if dataset["drawn"] else "photographs",
        **{name: dataset[name] for name in ("split_version", "split_digest", "pixel_digest")},
        "seed": str(about["seed"]), "ad_hoc": str(about["ad_hoc"]).lower(),
        **{name: about[name] for name in ("commit", "device", "precision")},
        "torch": about["versions"].get("torch", ""), "state": "running",
        "mlflow.source.name": "facebench run", "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": about["commit"],
    }  # fmt: skip


def params_of(about: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a definition to what it uses: no None, no augmentation of strength 0."""
    definition = about["experiment"]
    parts = {part: definition.get(part) for part in PARTS}
    values = {"experiment": definition["name"], "seed": about["seed"]} | dict(flattened(parts))
    return {
        name: str(value)
        for name, value in values.items()
        if value is not None and not (name.startswith("recipe.augmentation.") and not value)
    }


def metrics_of(record: RunRecord) -> dict[str, float]:
    """Give the numbers of a finished run by which runs are compared, by MLflow's name."""
    tasks, metrics = tasks_of(record), record.metrics
    selected = ["selected/val/combined", "test/combined"]
    names = [f"test/{task}/{name}" for task in tasks for name in OF_A_TASK]
    names += [f"cost/{name}" for name in COSTS]
    names += selected if len(tasks) > 1 else [f"selected/val/{tasks[0]}/accuracy"]
    return {name: float(metrics[name]) for name in names if name in metrics}


def scores_of(metrics: Mapping[str, float]) -> pd.DataFrame:
    """Give every number of a run with the bounds of its interval, where it has one."""
    rows = [
        (name, value, metrics.get(f"{name}/low"), metrics.get(f"{name}/high"))
        for name, value in metrics.items()
        if not name.endswith(("/low", "/high"))
    ]
    return pd.DataFrame(rows, columns=["score", "value", "low", "high"])


def tasks_of(record: RunRecord) -> list[str]:
    return list(record.about["experiment"]["head"]["tasks"])
