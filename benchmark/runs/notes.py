"""A run in words: its note, tags and parameters, and Markdown that no name can break."""

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markdown_it import MarkdownIt

from benchmark.evaluation.predictions import LIMITS_DRAWN, limits_of
from benchmark.evaluation.red_flags import flag_state, warning
from benchmark.record import RunRecord
from benchmark.tasks import TASK_TITLES, TASKS

NOTHING: Final = "–"
SPECIAL: Final = "\\`*_{}[]#|~!"
"""What Markdown, or a table in it, takes for more than a letter unless a \\ is before it."""
ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""Not every reader of Markdown takes \\< as a letter: MLflow's does not."""

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8886; text-align: left; }
td[style*=right], th[style*=right] { font-variant-numeric: tabular-nums; white-space: nowrap; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: .4rem solid #c60; }
code { overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; } }
"""


def plain(text: Any) -> str:
    """Write any text so that Markdown shows it as it is, on one line."""
    words = " ".join(str(text).split())
    return "".join(
        f"\\{letter}" if letter in SPECIAL else ENTITIES.get(letter, letter) for letter in words
    )


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


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, n_left: int = 1) -> list[str]:
    """Lay out a table, its first `n_left` columns to the left and the others to the right."""
    lines = [
        f"| {' | '.join(headings)} |",
        "|"
        + "|".join("---" if column < n_left else "--:" for column in range(len(headings)))
        + "|",
    ]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def page(markdown: str, title: str) -> str:
    """Turn a card into one HTML page that needs nothing else; HTML within the text stays text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}</main></body></html>\n"
    )


IDENTITY_TAG: Final = "facebench.identity"
ATTEMPT_TAG: Final = "facebench.attempt"
TRAINING_TAG: Final = "facebench.training"
"""Tells runs of one identity apart: a folder removed and trained again is another training."""
RED_FLAG_TAG: Final = "red_flag"
CROSSED: Final = "gender_race"


@dataclass(frozen=True)
class NoteLinks:
    """Where what a note points to is found; a note without them names nothing it cannot show."""

    page: Callable[[str], str] | None = None
    """From a figure's file name to the page that shows it."""
    model: str = ""
    """What `mlflow.pyfunc.load_model` takes."""


def data_note(dataset: dict[str, Any]) -> str:
    """Describe a data set; `dataset` is the part of `experiment.json` by that name."""
    counts = dataset["counts"]
    kind = "**Synthetic faces**: emblems, not people" if dataset["drawn"] else "Photographed faces"
    return (
        f"{kind}. Data set {code(dataset['name'])}: {counts['train']:,} training, "
        f"{counts['val']:,} validation and {counts['test']:,} test faces; split "
        f"{plain(dataset['split_version'])}, digest `{dataset['split_digest'][:12]}`.\n\n"
        "Each run is one experiment with one seed. Filter by tags: `architecture`, `weights`, "
        "`tasks`, `trainable`, `seed`. Runs are ranked by `val/combined`, never by test.\n\n"
        + "\n\n".join(limits_of(dataset))
    )


def run_note(record: RunRecord, links: NoteLinks | None = None) -> str:
    """Describe a run: its question, its network, and its outcome once there is one.

    links: to the run's figures and network, where the note is shown beside them.
    """
    links, about, done = links or NoteLinks(), record.about, record.state == "done"
    definition, dataset = about["experiment"], about["dataset"]
    # MLflow folds a note to 100 pixels, and of these only the first 40 can be clicked on.
    lines = _figures(record, links) if done else []
    lines += [f"**{plain(definition['asks'])}**", "", _network_in_words(about), ""]
    lines += [*LIMITS_DRAWN, ""] if dataset["drawn"] else []
    if about["leaky"]:
        lines += ["**LEAKY**: test faces were seen in training.", ""]
    if about["ad_hoc"]:
        lines += ["Ad hoc: changed on the command line, kept off leaderboards.", ""]
    if record.state == "failed":
        # MLflow cuts a note after 8,000 letters.
        trace = str(record.failed.get("traceback", "")).replace("```", "'''").splitlines()
        why = plain(str(record.failed.get("why", ""))[:3_000])
        again = f"`facebench run {record.experiment_name} --seeds {record.seed}`"
        kept = "\n".join(trace[-30:])[-3_000:]
        lines += [f"**Failed**: {why} {again} tries again.", "", "```", kept, "```", ""]
    if done:
        lines += _outcome(record)
    if done and links.model:
        lines += [
            "```python",
            f'model = mlflow.pyfunc.load_model("{links.model}")  # tensors alone, no pickled code',
            "model.predict(faces)  # uint8 (n, px, px, 3), RGB -> probabilities per task",
            "```",
            "",
        ]
    return "\n".join([*lines, "", *limits_of(dataset)])


def _network_in_words(about: dict[str, Any]) -> str:
    backbone, head = about["experiment"]["backbone"], about["experiment"]["head"]
    tasks = " and ".join(TASK_TITLES[task] for task in TASKS if task in head["tasks"])
    start = "random weights" if backbone["weights"] == "none" else f"{backbone['weights']} weights"
    depth = {"all": "fully trained", 0: "frozen"}.get(
        backbone["trainable_stages"], f"deepest {backbone['trainable_stages']} stage(s) trained"
    )
    total, trainable = about["parameters"]["total"], about["parameters"]["trainable"]
    return (
        f"`{backbone['architecture']}` from {start}, backbone {depth}, predicts {tasks}: "
        f"{total:,} parameters, {trainable:,} of them trained. Seed {about['seed']}, "
        f"protocol {plain(about['protocol_name'])}, {plain(about['device'])}, {about['precision']}."
    )


def _outcome(record: RunRecord) -> list[str]:
    """Give a table of accuracies, the selected epoch, and what to know about them."""
    metrics = record.metrics

    def rated(name: str) -> str:
        found = [metrics.get(f"{name}{end}") for end in ("", "/low", "/high")]
        return "not evaluated" if found[0] is None else rate(*found)

    rows = [
        [TASK_TITLES[task], rated(f"selected/val/{task}/accuracy"),
         rated(f"test/{task}/accuracy"), rated(f"test/{task}/macro_f1")]
        for task in record.about["experiment"]["head"]["tasks"]
    ]  # fmt: skip
    epoch = record.done["selected_epoch"]
    lines = table(("", "validation", "test", "test macro-F1"), rows, n_left=4)
    lines += [f"Weights of epoch {epoch} of {record.done['epochs']}, selected on validation.", ""]
    shared = int(metrics.get("test/n_faces", 0) - metrics.get("test/n_clusters", 0))
    if shared:
        lines += [f"Intervals take faces as independent; {shared} of test repeat a picture.", ""]
    gap, chance = (metrics.get(f"test/age_group/gap_{CROSSED}{end}") for end in ("", "/chance"))
    if gap is not None:
        expected = "" if chance is None else f"; {100 * chance:.1f} expected under permutation"
        worst = rated(f"test/age_group/worst_{CROSSED}")
        lines += [f"Age group, by gender × race: worst {worst}, gap {100 * gap:.1f} pp{expected}."]
        lines += [""]
    flagged = warning({record.identity[:12]: flag_state(record)}, record.identity[:12])
    return lines + ([f"**{flagged}**", ""] if flagged else [])


def _figures(record: RunRecord, links: NoteLinks) -> list[str]:
    """Link to the figures: MLflow's notes show none in a size that can be read."""
    if links.page is None:
        return []
    titles = {"confusion": "Confusion matrices", "heat_map": "Gender × race",
              "subgroups": "Subgroups", "curves": "Learning curves"}  # fmt: skip
    found = []
    for kind, title in titles.items():
        # Runs of before have a figure for each task.
        for path in sorted(record.folder.glob(f"{kind}*.png")):
            task = path.stem.removeprefix(kind).strip("_").replace("_", " ")
            found.append(f"[{title}{f', {task}' if task else ''}]({links.page(path.name)})")
    return [" · ".join(found), ""] if found else []


def flag_tag(record: RunRecord) -> str:
    """Name a finished run's red flags; empty where there are none."""
    state = flag_state(record)
    seen = "stopped" if state.stopped else "acknowledged"
    return f"{seen}: {'; '.join(map(str, state.flags))}" if state.flags else ""


def run_params(about: dict[str, Any]) -> dict[str, Any]:
    """Flatten a run's definition to dotted names; what only describes it is left out."""
    definition = about["experiment"]

    def flat(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {name: value}
        return {
            k: v for key, inner in value.items() for k, v in flat(f"{name}.{key}", inner).items()
        }

    params = {"experiment": definition["name"], "seed": about["seed"]}
    for part in ("backbone", "head", "recipe", "protocol", "subset"):
        if definition.get(part) is not None:
            params |= flat(part, definition[part])
    return params


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
        IDENTITY_TAG: record.identity,
        ATTEMPT_TAG: str(about.get("attempt", 1)),
        **({TRAINING_TAG: about["training"]} if "training" in about else {}),
        "experiment": definition["name"],
        "architecture": backbone["architecture"],
        "weights": backbone["weights"],
        "weights_sha256": about["weights"]["sha256"] or "none",
        "tasks": "+".join(definition["head"]["tasks"]),
        "trainable": str(backbone["trainable_stages"]),
        "conditioning": definition["head"]["conditioning"],
        "protocol": ("LEAKY " if about["leaky"] else "") + str(about["protocol_name"]),
        "faces": "drawn" if dataset["drawn"] else "photographs",
        "split_version": dataset["split_version"],
        "split_digest": dataset["split_digest"],
        "pixel_digest": dataset["pixel_digest"],
        "seed": str(about["seed"]),
        "commit": about["commit"],
        "device": about["device"],
        "precision": about["precision"],
        "ad_hoc": str(about["ad_hoc"]).lower(),
        "torch": about["versions"].get("torch", ""),
        "state": "running",
        "mlflow.source.name": "facebench run",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": about["commit"],
    }
