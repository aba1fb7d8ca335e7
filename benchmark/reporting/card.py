"""Model cards: text and numbers.

A model card: what a trained run is, how well it reads faces, for whom it fails, and its limits.

After M. Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), from the run's stored files
alone. How its text is written and turned into a page is for benchmark.runs.notes.

The numbers of a model card: per task, per group of people, and what probabilities are worth.
"""

import contextlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from benchmark.comparison.verdicts import one_place, p_text
from benchmark.errors import RunError
from benchmark.evaluation.calibration import SUBGROUP_FACES
from benchmark.evaluation.predictions import LIMITS, LIMITS_DRAWN
from benchmark.evaluation.red_flags import UTKFACE_NAME, flag_state, warning
from benchmark.evaluation.subgroups import FALSE_POSITIVE, GAP_BY, SMALL_GROUP, TRUE_POSITIVE
from benchmark.record import RunRecord
from benchmark.runs.notes import NOTHING, code, plain, rate, table
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

DIVISION_TITLES: Final = {
    "age_group": "age group",
    "gender": "gender",
    "race": "race",
    "gender_race": "gender × race",
}

RATES: Final = (TRUE_POSITIVE, FALSE_POSITIVE)


def tasks_of(record: RunRecord) -> list[TaskName]:
    """Name the tasks that a run reads, in their usual order."""
    return [task for task in TASKS if task in record.about["experiment"]["head"]["tasks"]]


def result_lines(record: RunRecord) -> list[str]:
    """Tell how well a run reads each task on its test faces."""
    metrics = record.metrics
    tasks = [task for task in tasks_of(record) if f"test/{task}/accuracy" in metrics]
    lines = ["## How well it reads faces", ""]
    if not tasks:
        return [*lines, "Its test faces were not read.", ""]
    everyone = _everyone(record)
    rows = [
        (
            TASK_TITLES[task],
            f"{everyone[task][0]:,}",
            rate(metrics[f"test/{task}/accuracy"], *everyone[task][1:]),
            _measured(metrics, f"test/{task}/macro_f1"),
            _measured(metrics, f"test/{task}/balanced_accuracy"),
        )
        for task in tasks
    ]
    headings = ("task", "test faces", "accuracy", "macro-F1", "balanced accuracy")
    lines += table(headings, rows)
    if len(tasks) > 1 and "test/combined" in metrics:
        lines += [f"Mean of the tasks: {_measured(metrics, 'test/combined')}.", ""]
    return [
        *lines,
        "In brackets: 95 % intervals over test faces. One training; another seed gives other "
        "numbers. Test faces were read once, after selection on validation.",
        "",
    ]


def _everyone(record: RunRecord) -> dict[str, tuple[int, float, float]]:
    """Give how many faces a task was tested on and its accuracy's interval, by task."""
    groups = record.subgroups()
    found = groups[groups["by"] == "all"]
    columns = (found[name].tolist() for name in ("task", "n", "low", "high"))
    return {
        str(task): (int(n), float(low), float(high))
        for task, n, low, high in zip(*columns, strict=True)
    }


def _measured(metrics: Mapping[str, float], name: str) -> str:
    """Write a metric with the interval stored beside it, where there is one."""
    return rate(*(metrics.get(key) for key in (name, f"{name}/low", f"{name}/high")))


def subgroup_lines(record: RunRecord) -> list[str]:
    """Tell for whom it fails: each task by age group, gender, race and both."""
    metrics = record.metrics
    tasks = [task for task in tasks_of(record) if f"test/{task}/accuracy" in metrics]
    if not tasks:
        return []
    groups = record.subgroups()
    lines = ["## For whom it fails", ""]
    for task in tasks:
        ours = groups[(groups["task"] == task) & (groups["by"] != "all")]
        if task != "age_group":
            # Alone it would be the recall of a class, not a matter of who is looked at.
            ours = ours[ours["by"] != task]
        lines += [f"### {TASK_TITLES[task].capitalize()}", "", *_gap_lines(record, task)]
        rows = [
            (
                DIVISION_TITLES[str(group["by"])],
                plain(group["group"]),
                f"{int(group['n']):,}{' (few)' if int(group['n']) < SMALL_GROUP else ''}",
                rate(float(group["accuracy"]), float(group["low"]), float(group["high"])),
            )
            for _, group in ours.iterrows()
        ]
        lines += table(("by", "group", "test faces", "accuracy"), rows, n_left=2)
        lines += _rate_lines(record, task)
    return [
        *lines,
        *_gender_gap_lines(record),
        f"Groups are by the labels, which are perceived. Under {SMALL_GROUP} faces (few) a group "
        "is shown and never ranked. The worst group is the lowest of several, in part by chance: "
        "its interval does not allow for that, the gap's does. Of gender and race, a crossed "
        "group holds the task's own classes: its accuracy is how often that class is recognised.",
        "",
    ]


def _gap_lines(record: RunRecord, task: TaskName) -> list[str]:
    """Say who is read worst, and how much wider the gap is than chance alone would make it."""
    path = record.folder / "gaps.csv"
    if not path.is_file():
        return ["Gaps are not computed yet: `facebench runs rescore` does it.", ""]
    gaps = pd.read_csv(path)
    chosen = gaps[(gaps["task"] == task) & (gaps["by"] == GAP_BY[task])].dropna(subset=["gap"])
    if chosen.empty:
        return ["Too few faces to set groups against each other.", ""]
    row = chosen.iloc[0]
    groups = record.subgroups()
    ours = (groups["task"] == task) & (groups["by"] == GAP_BY[task])
    shown = groups[ours & (groups["group"] == row["worst_group"])].iloc[0]
    worst = rate(*(float(shown[name]) for name in ("accuracy", "low", "high")))
    gap, low, high, chance = (
        100 * float(row[name]) for name in ("gap", "gap_low", "gap_high", "chance_gap")
    )
    return [
        f"By {DIVISION_TITLES[GAP_BY[task]]}, worst for **{plain(row['worst_group'])}** "
        f"(n {int(row['worst_n'])}): "
        f"{worst}; best for {plain(row['best_group'])}: {rate(float(row['best']))}. Gap "
        f"{gap:.1f} points ({low:.1f}–{high:.1f}); chance alone makes {chance:.1f} "
        f"(p {p_text(float(row['p']))}, corrected {p_text(float(row['p_holm']))}).",
        "",
    ]


def _stored(record: RunRecord, name: str) -> pd.DataFrame | None:
    """Read a table of the run's folder; None where it was scored before there was one."""
    path = record.folder / f"{name}.csv"
    return pd.read_csv(path, dtype={"group": str, "within": str}) if path.is_file() else None


def _points(row: Mapping[Hashable, Any]) -> tuple[str, str, str]:
    """Write a difference in percentage points with its interval, its permuted level and p."""
    value, low, high, level = (
        100 * float(row[name]) for name in ("difference", "low", "high", "permuted")
    )
    said = f"{one_place(value)} ({one_place(low)} to {one_place(high)})"
    return said, f"{level:.1f}", p_text(float(row["p"]))


def _rate_lines(record: RunRecord, task: TaskName) -> list[str]:
    """Compare true- and false-positive rates of subgroups, class by class."""
    rates = _stored(record, "subgroup_rates")
    if rates is None:
        return []
    ours = rates[(rates["task"] == task) & rates["difference"].notna()]
    if ours.empty:
        return []
    rows = [
        (
            plain(row["class"]),
            plain(row["rate"]),
            *(
                f"{plain(row[f'{end}_group'])} {rate(row[end])}" if row["rate"] in RATES else ""
                for end in ("lowest", "highest")
            ),
            *_points(row),
        )
        for row in ours.to_dict("records")
    ]
    return [
        f"True- and false-positive rates by {DIVISION_TITLES[GAP_BY[task]]}, each class against "
        "the rest; equalized odds is the larger difference of the two:",
        "",
        *table(
            ("class", "rate", "lowest", "highest", "difference, pp", "permuted", "p"),
            rows,
            n_left=4,
        ),
    ]


def _gender_gap_lines(record: RunRecord) -> list[str]:
    """Compare the accuracy for women and men of the same age."""
    gaps = _stored(record, "gender_gaps")
    if gaps is None or gaps.empty:
        return []
    rows = [
        (
            TASK_TITLES[row["task"]],
            plain(row["within"]),
            f"{int(row['n_female']):,} / {int(row['n_male']):,}",
            rate(row["female"]),
            rate(row["male"]),
            *_points(row),
        )
        for row in gaps.to_dict("records")
    ]
    return [
        "### Women and men",
        "",
        *table(
            ("task", "age", "n, women / men", "women", "men", "difference, pp", "permuted", "p"),
            rows,
            n_left=2,
        ),
        "Adjusted for age group: the age groups' differences weighted by their test faces, so that "
        "women and men of one age are compared. Permuted, here and above: the mean (absolute) "
        "difference when answers change places among faces of the same true class, here among "
        "the row's faces (adjusted: those of one age group); p is how often it is as wide.",
        "",
    ]


def age_lines(record: RunRecord) -> list[str]:
    """Tell how age groups are read near an edge, and the error in years."""
    edges, years = _stored(record, "age_edges"), _stored(record, "age_years")
    if edges is None:
        return []
    rows = [
        (
            str(row["years_from_edge"]),
            f"{row['n']:,}",
            rate(row["accuracy"], row["low"], row["high"]),
        )
        for row in edges.to_dict("records")
    ]
    lines = [
        "## Age in years",
        "",
        *table(("years from an edge", "test faces", "accuracy"), rows),
        "Edges are 14, 25, 40 and 60 years, each the last year of its group.",
        "",
    ]
    if years is None:
        return lines
    everyone = years[years["group"] == "all"]
    errors = [
        (str(row["read_as"]), f"{row['mae_years']:.2f} ({row['low']:.2f}–{row['high']:.2f})")
        for row in everyone.to_dict("records")
    ]
    return [
        *lines,
        *table(("read as", "mean absolute error, years"), errors),
        "A predicted group is read as the mean age of its training faces, the expected age weighs "
        "these means by the probabilities, and the true group is what a network that is always "
        "right would be off. No network was trained on years.",
        "",
    ]


def calibration_lines(record: RunRecord) -> list[str]:
    """Tell how far its confidence is from its accuracy."""
    lines = ["## What its probabilities are worth", ""]
    tasks: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = (record.folder / "calibration.json").read_text(encoding="utf-8")
        tasks = json.loads(content)["tasks"]
    if not tasks:
        return [*lines, "Not computed yet: `facebench runs rescore` does it.", ""]
    rows = []
    for task in tasks_of(record):
        found = tasks[task]
        temperature = f"{found['temperature']:.3f}"
        rows.append(
            (
                TASK_TITLES[task],
                rate(found["ece"].get("test", found["ece"].get("val"))),
                rate(found["ece_by_chance"]),
                temperature + (" (at an end)" if found["temperature_is_at_an_end"] else ""),
                rate(found["ece_tempered"].get("test", found["ece_tempered"].get("val"))),
                *(_score(found.get(name, {})) for name in ("nll", "brier")),
            )
        )
    headings = (
        *("task", "calibration error", "by chance", "temperature", "error with it"),
        *("NLL", "Brier"),
    )
    return [
        *lines,
        *table(headings, rows),
        *_subgroup_calibration_lines(record),
        "Expected calibration error: how far confidence is from accuracy, on test where it was "
        "read. The temperature was fitted on validation, and is applied nowhere. NLL: negative "
        "log-likelihood in nats; Brier: squared distance from the label over all classes, 0 to 2.",
        "",
    ]


def _score(by_part: Mapping[str, float]) -> str:
    value = by_part.get("test", by_part.get("val"))
    return NOTHING if value is None else f"{value:.3f}"


def _subgroup_calibration_lines(record: RunRecord) -> list[str]:
    """List the subgroups whose calibration error is surely above what chance alone gives."""
    errors = _stored(record, "subgroup_ece")
    if errors is None:
        return []
    ours = errors[errors["by"] != "all"]
    sure = ours[ours["low"] > ours["chance"]].sort_values("ece", ascending=False)
    rows = [
        (
            TASK_TITLES[row["task"]],
            plain(row["group"]),
            f"{row['n']:,}",
            rate(row["ece"], row["low"], row["high"]),
            rate(row["chance"]),
        )
        for row in sure.to_dict("records")
    ]
    said = (
        f"Subgroups of {SUBGROUP_FACES} faces or more whose interval of the calibration error lies "
        f"above what chance gives: {len(sure)} of {len(ours)} (all are in subgroup_ece.csv)."
    )
    headings = ("task", "group", "test faces", "calibration error", "by chance")
    return [said, "", *(table(headings, rows, n_left=2) if rows else [])]


CARD_FILE: Final = "card.md"
INTENDED: Final = (
    "Comparing networks, starting weights and depths of training under one leak-free protocol.",
    "Studying for whom such networks fail, and checking the published claims about them.",
)
NOT_INTENDED: Final = (
    "Deciding anything about a person: access, hiring, credit, insurance, health, policing, "
    "borders, advertising. It guesses what an annotator would perceive, and is wrong more often "
    "for some people than for others.",
    "Saying who somebody is, or what their gender, age or origin is: these are not in a picture.",
    "Watching, counting or sorting people who have not agreed to it.",
    "Pictures unlike those it was tested on: other crops, cameras or light.",
)


@dataclass(frozen=True)
class Origin:
    """What is known of the weights that a run started from."""

    licence: str = ""
    trained_on: str = ""


def model_card(record: RunRecord, origin: Origin | None = None) -> str:
    """Write the card of a finished run as Markdown; raises RunError where it is not finished.

    What an older facebench did not compute is left out, with the command that computes it.
    """
    if record.state != "done":
        raise RunError(
            f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed}) is "
            f"{record.state}",
            allowed="a finished run",
            source=str(record.folder),
            fix=f"`facebench run {record.experiment_name} --seeds {record.seed}` goes on with it",
        )
    try:
        parts = (
            _heading(record),
            _training(record),
            result_lines(record),
            subgroup_lines(record),
            age_lines(record),
            calibration_lines(record),
            _uses(record),
            _limits(record),
            _licences(record, origin or Origin()),
            _provenance(record),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the files of run {record.identity[:12]} hold too little for a card "
            f"({type(error).__name__}: {error})",
            allowed="what facebench writes",
            source=str(record.folder),
        ) from error
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _heading(record: RunRecord) -> list[str]:
    about = record.about
    definition, backbone = about["experiment"], about["experiment"]["backbone"]
    warnings: list[str] = []
    if about["dataset"]["drawn"]:
        warnings += LIMITS_DRAWN
    if about["leaky"]:
        warnings.append(
            "LEAKY: test faces were seen in training. No number here says how well it reads faces."
        )
    if about["ad_hoc"]:
        warnings.append("AD HOC: changed on the command line, and kept off leaderboards.")
    flagged = warning({record.identity[:12]: flag_state(record)}, record.identity[:12])
    warnings += [flagged] if flagged else []
    title = f"# Model card: {plain(definition['name'])}, seed {int(about['seed'])}"
    stages = backbone["trainable_stages"]
    depth = {"all": "trained as a whole", 0: "frozen"}.get(
        stages, f"frozen but for its {stages} deepest stage(s)"
    )
    *firsts, last = (TASK_TITLES[task] for task in tasks_of(record))
    reads = f"{', '.join(firsts)} and {last}" if firsts else last
    start = "random" if backbone["weights"] == "none" else code(backbone["weights"])
    parameters = about["parameters"]
    return [
        title,
        "",
        *(line for text in warnings for line in (f"> **{plain(text)}**", "")),
        f"{plain(definition['asks'])}",
        "",
        f"A {code(backbone['architecture'])} trunk from {start} weights, "
        f"{depth}, that reads {reads} from a face of {int(backbone['input_px'])} px: "
        f"{parameters['total']:,} parameters, {parameters['trainable']:,} of them trained.",
        "",
    ]


def _training(record: RunRecord) -> list[str]:
    about = record.about
    dataset, counts = about["dataset"], about["dataset"]["counts"]
    faces = "drawn faces" if dataset["drawn"] else "photographed faces"
    subset = about["experiment"].get("subset")
    about_whom = "everyone in it"
    if subset:
        people = ", ".join(str(subset[key]) for key in ("gender", "race") if subset.get(key))
        about_whom = f"{plain(people)}; trained on: {plain(subset['training'])}"
    done, recipe = record.done, about["experiment"]["recipe"]
    rows = [
        ("data set", f"{code(dataset['name'])}, {faces}"),
        ("people", about_whom),
        ("training faces", f"{counts['train']:,}"),
        ("selected on", f"{counts['val']:,} validation faces"),
        ("split", f"{plain(dataset['split_version'])}, digest {code(dataset['split_digest'])}"),
        ("protocol", plain(about["protocol_name"])),
        ("epochs", f"{done['epochs']}, the weights of epoch {done['selected_epoch']} kept"),
        ("learning rate, batch", f"{recipe['learning_rate']:g}, {recipe['batch_size']}"),
        ("training time", f"{done['seconds']:,.0f} s on {plain(about['device'])}"),
    ]
    return ["## What it was trained on", "", *table(("", ""), rows, n_left=2)]


def _uses(record: RunRecord) -> list[str]:
    return [
        *("## Intended use", "", *(f"- {text}" for text in INTENDED), ""),
        *("## Not intended", "", *(f"- {text}" for text in NOT_INTENDED), ""),
    ]


def _limits(record: RunRecord) -> list[str]:
    drawn = bool(record.about["dataset"]["drawn"])
    return [
        "## Limits",
        "",
        *(f"- {text}" for text in (LIMITS_DRAWN if drawn else ()) + LIMITS),
        "",
    ]


def _licences(record: RunRecord, origin: Origin) -> list[str]:
    about = record.about
    dataset, weights = about["dataset"], about["weights"]
    if dataset["drawn"]:
        data = "drawn by facebench, under its licence (Apache-2.0)"
    elif UTKFACE_NAME in str(dataset["name"]).lower():
        data = "UTKFace, for non-commercial research only; the pictures belong to their owners"
    else:
        data = "not known to facebench: ask whoever gave you the pictures"
    start = "random values: no licence but that of the code"
    if weights["source"] != "none":
        start = f"{code(weights.get('origin') or weights['source'])}, "
        start += f"licence: {plain(origin.licence or 'not known to facebench')}"
        start += f"; trained on {plain(origin.trained_on)}" if origin.trained_on else ""
    return [
        *("## Licences", ""),
        f"- Data: {data}.",
        f"- Weights it started from: {start}.",
        "- Code: Apache-2.0. What may be done with the trained weights follows from the stricter "
        "of data and starting weights.",
        "",
    ]


def _provenance(record: RunRecord) -> list[str]:
    about, done = record.about, record.done
    dataset, weights = about["dataset"], about["weights"]
    versions = ", ".join(f"{plain(k)} {plain(v)}" for k, v in about.get("versions", {}).items())
    rows = [
        ("run", code(record.identity)),
        ("seed", str(record.seed)),
        ("finished", plain(done.get("finished", NOTHING))),
        ("commit", code(about["commit"])),
        ("device", f"{plain(about['device'])}, {plain(about['precision'])}"),
        ("versions", versions or NOTHING),
        ("pixel digest", code(dataset["pixel_digest"])),
        ("split digest", code(dataset["split_digest"])),
        ("weights digest", code(weights["sha256"] or "")),
        ("predictions digest", code(record.predictions_sha256)),
    ]
    name, kept = record.experiment_name, (record.folder / "model.safetensors").is_file()
    again = f"facebench run {name} --seeds {record.seed} --dataset {dataset['name']}"
    lines = ["## How it was made", "", *table(("", ""), rows, n_left=2), "```", again, "```", ""]
    if kept:
        lines += [
            "Its network, tensors without code, is `model.safetensors` in the run's folder:",
            *("", "```python", "from benchmark.inference.load import load_trained", ""),
            'model = load_trained("model.safetensors")',
            "model.predict(faces)  # uint8 (n, px, px, 3), RGB -> probabilities per task",
            *("```", ""),
        ]
    return lines
