"""The leak in words and as tables of text: what a leaky number is made of.

Numbers come from benchmark.results.leak_study. LEAKY stands in the title and in each row that is.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

from benchmark.results.leak_study import (
    ALONE,
    HONEST,
    PUBLISHED,
    Change,
    Group,
    LeakArm,
    LeakStudy,
    NetworkLeak,
    Rate,
)
from benchmark.results.limits import LIMITS, LIMITS_DRAWN
from benchmark.results.verdicts import points
from benchmark.tasks import TASK_TITLES, TASKS

NOTHING: Final = "–"
STEP_TITLES: Final = {
    "published": "as published",
    "split": "no test file in training",
    "duplicates": "nor a picture of its cluster",
    "batches": "batches drawn anew each epoch",
    "scaling": "input as the weights demand",
    "honest": "selected on clean faces",
}
ALONE_TITLES: Final = {
    "split": "no test file in training",
    "only_duplicates": "one face per cluster",
    "only_batches": "batches drawn anew each epoch",
    "only_scaling": "input as the weights demand",
    "only_selection": "selected on clean faces",
}
EXPOSURE_TITLES: Final = {
    "seen": "seen in training",
    "related": "in validation, or a picture of its cluster was met",
    "clean": "clean: never met",
}


def rate_text(rate: Rate | None) -> str:
    """Write accuracy, sd over seeds and interval in percent."""
    if rate is None:
        return NOTHING
    sd = f" ±{100 * rate.sd:.1f}" if rate.sd is not None else ""
    return f"{100 * rate.mean:.1f}{sd} ({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def change_text(change: Change | None) -> str:
    """Write a change in points with its interval over seeds."""
    if change is None:
        return NOTHING
    if change.low is None or change.high is None:
        return points(change.mean)
    return f"{points(change.mean)} ({points(change.low)} to {points(change.high)})"


def mark(network: NetworkLeak, ending: str) -> str:
    """Name what a step mends, with what was not run before it; LEAKY before what leaks."""
    title = STEP_TITLES[ending]
    skipped = network.n_skipped(ending)
    if skipped:
        title += (
            f", and the {skipped} steps before it" if skipped > 1 else ", and the step before it"
        )
    return f"LEAKY · {title}" if network.arms[ending].leaky else title


def decomposition_cells(network: NetworkLeak) -> Iterator[list[str]]:
    """Give the cells of the decomposition: all of the published arm's test, then by exposure."""
    published = network.arms[PUBLISHED]
    yield [
        "LEAKY · all test faces",
        f"{published.n_test:,}",
        *(rate_text(published.rates[task]) for task in TASKS),
    ]
    for group in network.groups:
        leaky = "" if group.exposure == "clean" else "LEAKY · "
        yield [
            leaky + EXPOSURE_TITLES[group.exposure],
            f"{group.n:,}",
            *(rate_text(group.rates.get(task)) for task in TASKS),
        ]


def waterfall_cells(network: NetworkLeak) -> Iterator[list[str]]:
    """Give the cells of the waterfall: each step's accuracy and its change, task by task."""
    for ending in network.shown:
        arm = network.arms[ending]
        changes = network.steps.get(ending, {})
        yield [
            mark(network, ending),
            f"{arm.n_test:,}",
            *(
                cell
                for task in TASKS
                for cell in (rate_text(arm.rates[task]), change_text(changes.get(task)))
            ),
            epochs_text(arm),
        ]


def alone_cells(network: NetworkLeak) -> Iterator[list[str]]:
    """Give the cells of the table of single conditions: change against `published`."""
    for ending in ALONE:
        if ending in network.alone:
            changes = network.alone[ending]
            yield [
                f"LEAKY · {ALONE_TITLES[ending]}",
                *(change_text(changes[task]) for task in TASKS),
            ]


def epochs_text(arm: LeakArm) -> str:
    """Say how long each seed trained."""
    return ", ".join(str(epochs) for epochs in arm.epochs)


def sentences(study: LeakStudy) -> list[str]:
    """Answer in words: how much of the leaky number is honest."""
    return [sentence for network in study.networks for sentence in _of_network(network)]


def _of_network(network: NetworkLeak) -> Iterator[str]:
    published = network.arms[PUBLISHED]
    clean = next((group for group in network.groups if group.exposure == "clean"), None)
    leaky = _triple({task: published.rates[task] for task in TASKS})
    if clean is not None and clean.n:
        yield (
            f"{network.label}: LEAKY {leaky} % (age group / gender / race) on all of its test "
            f"faces, {_triple(clean.rates)} % on the {clean.n:,} of them that it never met: the "
            "honest number inside the leaky one, from the same network."
        )
    honest = network.arms.get(HONEST)
    if honest is not None:
        fall = " / ".join(
            points(honest.rates[task].mean - published.rates[task].mean) for task in TASKS
        )
        yield (
            f"{network.label}, trained and tested without the leak: {_triple(honest.rates)} % on "
            f"{honest.n_test:,} faces; against the leaky number {fall} points."
        )


def _triple(rates: Any) -> str:
    return " / ".join(f"{100 * rates[task].mean:.1f}" for task in TASKS)


def notes(study: LeakStudy) -> list[str]:
    """Say how the tables are to be read."""
    said = [
        "Percent of test faces read right: mean ± sd over seeds, with the 95 % interval of a "
        "bootstrap over clusters of test faces; changes in points, with Welch's 95 % interval "
        "over seeds.",
        "The steps are cumulative and in one order of many: what a step is worth depends on it. "
        "Optimiser settings are equal throughout. Steps before the third are tested on other "
        "faces than those after it; the intervals of the accuracies tell what that can do.",
    ]
    networks = study.networks
    said += [sentence for network in networks if (sentence := _how_long(network))]
    if study.missing:
        said.append(f"Not shown: {'; '.join(study.missing)}.")
    return said


def _how_long(network: NetworkLeak) -> str:
    """Say by what rule a network's trainings ended, and where they ended otherwise."""
    arms = network.arms.values()
    fitted = {
        f"{arm.name} (seed {seed}: {100 * rate:.1f} %)": rate
        for arm in arms
        for seed, rate in zip(arm.seeds, arm.fitted, strict=True)
    }
    if all(math.isnan(rate) for rate in fitted.values()):
        epochs = sorted({number for arm in arms for number in arm.epochs})
        return f"{network.label}: every arm trained for {' or '.join(map(str, epochs))} epochs."
    rule = (
        f"{network.label}: each training ended when every task was at 99 % on its training faces "
        "in eval mode, or after 40 epochs."
    )
    short = [name for name, rate in fitted.items() if not rate >= 0.99]
    return f"{rule} Not at 99 % then: {', '.join(short)}." if short else rule


def markdown(study: LeakStudy) -> str:
    """Write the study as GitHub Markdown, in percent and points."""
    faces = "DRAWN FACES · " if study.drawn else ""
    lines = [f"# {faces}LEAKY · What a leak is worth, {study.dataset}", ""]
    lines += [f"- {sentence}" for sentence in sentences(study)]
    for network in study.networks:
        lines += ["", f"## {network.label}", "", "How the leaky network met its test faces:", ""]
        lines += _table(
            ["test faces", "n", *(TASK_TITLES[task] for task in TASKS)],
            decomposition_cells(network),
        )
        heads = [head for task in TASKS for head in (TASK_TITLES[task], "change")]
        lines += ["", "From the leaky number to the honest one, in steps:", ""]
        lines += _table(["condition", "n test", *heads, "epochs"], waterfall_cells(network))
        if network.alone:
            lines += ["", "One condition mended by itself, against *as published*:", ""]
            titles = [TASK_TITLES[task] for task in TASKS]
            lines += _table(["condition", *titles], alone_cells(network))
        lines += _study_lines(network)
    limits = (*LIMITS_DRAWN, *LIMITS) if study.drawn else LIMITS
    lines += ["", *(f"- {note}" for note in (*notes(study), *limits)), ""]
    return "\n".join(lines)


def _table(heads: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(cells)} |" for cells in rows)


def _study_lines(network: NetworkLeak) -> Iterator[str]:
    if network.study is not None:
        printed = [getattr(network.study, task) for task in TASKS]
        shown = " / ".join(NOTHING if rate is None else f"{100 * rate:.1f}" for rate in printed)
        yield ""
        yield (
            f"For reference, LEAKY: the study printed {shown} % for its row {network.study.row}; "
            "its crops and its framework were others."
        )


def as_data(study: LeakStudy) -> dict[str, Any]:
    """Give the study as plain JSON-able values; rates and changes as fractions."""
    return {
        "dataset": study.dataset,
        "drawn": study.drawn,
        "sentences": sentences(study),
        "networks": [
            {
                "label": network.label,
                "arms": {
                    ending: {
                        **{key: value for key, value in vars(arm).items() if key != "rates"},
                        "rates": _rates_data(arm),
                    }
                    for ending, arm in network.arms.items()
                },
                "exposure": [
                    {"exposure": group.exposure, "n": group.n, "rates": _rates_data(group)}
                    for group in network.groups
                ],
                "steps": _changes_data(network.steps),
                "alone": _changes_data(network.alone),
            }
            for network in study.networks
        ],
        "missing": study.missing,
    }


def _rates_data(scored: LeakArm | Group) -> dict[str, Any]:
    return {task: vars(rate) | {"sd": rate.sd} for task, rate in scored.rates.items()}


def _changes_data(changes: Any) -> dict[str, Any]:
    return {
        ending: {task: vars(change) for task, change in by_task.items()}
        for ending, by_task in changes.items()
    }
