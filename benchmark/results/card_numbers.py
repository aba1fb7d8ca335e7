"""The numbers of a model card: per task, per group of people, and what probabilities are worth."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from benchmark.results.card_text import plain, rate, table
from benchmark.results.gaps import GAP_BY
from benchmark.results.record import RunRecord
from benchmark.results.subgroups import SMALL_GROUP
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

DIVISION_TITLES: Final = {
    "age_group": "age group",
    "gender": "gender",
    "race": "race",
    "gender_race": "gender × race",
}


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
    return [
        *lines,
        f"Groups are by the labels, which are perceived. Under {SMALL_GROUP} faces (few) a group "
        "is shown and never ranked. The worst group's interval is that of the lowest accuracy, "
        "whichever group it truly belongs to. Of gender and race, a crossed group holds the "
        "task's own classes: its accuracy is how often that class is recognised.",
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
    worst = rate(*(float(row[name]) for name in ("worst", "worst_low", "worst_high")))
    gap, low, high, chance = (
        100 * float(row[name]) for name in ("gap", "gap_low", "gap_high", "chance_gap")
    )
    return [
        f"By {DIVISION_TITLES[GAP_BY[task]]}, worst for **{plain(row['worst_group'])}** "
        f"(n {int(row['worst_n'])}): "
        f"{worst}; best for {plain(row['best_group'])}: {rate(float(row['best']))}. Gap "
        f"{gap:.1f} points ({low:.1f}–{high:.1f}); chance alone makes {chance:.1f} "
        f"(p {float(row['p']):.3f}, corrected {float(row['p_holm']):.3f}).",
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
            )
        )
    headings = ("task", "calibration error", "by chance", "temperature", "error with it")
    return [
        *lines,
        *table(headings, rows),
        "Expected calibration error: how far confidence is from accuracy, on test where it was "
        "read. The temperature was fitted on validation, and is applied nowhere.",
        "",
    ]
