"""The subset study in words and as tables of text: what a person asked, answered.

Numbers come from benchmark.results.paired import NOT_SIGNIFICANT, Judged
from benchmark.results.subset_study; the terminal's table is benchmark.cli's.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmark.results import verdicts
from benchmark.results.limits import LIMITS, LIMITS_DRAWN
from benchmark.results.paired import NOT_SIGNIFICANT, Judged
from benchmark.results.subset_study import (
    ArmResult,
    SubsetResult,
    SubsetStudy,
    SystemResult,
    Training,
)
from benchmark.results.verdicts import SIGNIFICANT, points

NOTHING: Final = "–"
TRAININGS: Final[tuple[tuple[Training, str], ...]] = (
    ("subset", "specialist"),
    ("everyone", "everyone"),
    ("size_matched", "size-matched"),
)


def people_text(result: SubsetResult) -> str:
    """Name the subset's people: `women`, `Black women`, `Others`."""
    people = result.subset
    gender = {"female": "women", "male": "men", None: ""}[people.gender]
    return f"{people.race or ''} {gender}".strip()


def arm_text(arm: ArmResult | None) -> str:
    """Write accuracy, sd over seeds and interval in percent."""
    if arm is None:
        return NOTHING
    sd = f" ±{100 * arm.sd:.1f}" if arm.sd is not None else ""
    return f"{100 * arm.accuracy:.1f}{sd} ({100 * arm.low:.1f}–{100 * arm.high:.1f})"


def difference_text(compared: Judged | None) -> str:
    """Write a difference in points with its interval."""
    if compared is None:
        return NOTHING
    found = compared.difference
    return f"{points(found.accuracy)} ({points(found.low)} to {points(found.high)})"


def p_text(compared: Judged | None) -> str:
    """Write the corrected p; `*` where it is 0.05 or less."""
    if compared is None:
        return NOTHING
    return verdicts.p_text(compared.p_holm) + (SIGNIFICANT if compared.significant else "")


def verdict_text(compared: Judged | None) -> str:
    """Say what the comparison tells: better, worse, or no significant difference."""
    return NOTHING if compared is None else verdicts.verdict_text(compared)


def sentences(study: SubsetStudy) -> list[str]:
    """Answer the study's questions, each in a sentence or two."""
    said = [
        _summary(
            study.subsets,
            "against_everyone",
            "Against the network trained on everyone, on the same people's faces,",
        ),
        _summary(
            study.subsets,
            "against_matched",
            "Against one trained on as many faces of everyone,",
        ),
    ]
    said += [_system_sentence(system) for system in study.systems]
    seeds = {arm.seeds for result in study.subsets for arm in result.arms.values()}
    if any(len(ours) == 1 for ours in seeds):
        said.append(
            "Arms with one seed are compared as two trainings (McNemar's exact test) and permit "
            "no claim about training on a subset in general."
        )
    return [sentence for sentence in said if sentence]


def _summary(results: Sequence[SubsetResult], which: str, start: str) -> str:
    found = [(result, getattr(result, which)) for result in results]
    compared = [(result, item) for result, item in found if item is not None]
    if not compared:
        return ""
    better = [people_text(r) for r, c in compared if c.verdict == "better"]
    worse = [people_text(r) for r, c in compared if c.verdict == "worse"]
    parts = [
        f"reads better for {', '.join(better)}" if better else "",
        f"reads worse for {', '.join(worse)}" if worse else "",
    ]
    rest = len(compared) - len(better) - len(worse)
    if rest:
        parts.append(f"shows {NOT_SIGNIFICANT} for {rest} of {len(compared)} subsets")
    return f"{start} the specialist " + "; it ".join(part for part in parts if part) + "."


def _system_sentence(system: SystemResult) -> str:
    compared = system.against_single
    if compared is None:
        return ""
    verdict = verdict_text(compared)
    return (
        f"Routing each face by {system.router} to its specialist reads "
        f"{100 * system.routed.accuracy:.1f} % of all test faces, the single network "
        f"{100 * system.single.accuracy:.1f} %: {difference_text(compared)} points, {verdict}. "
        f"{100 * system.misrouted_fraction:.1f} % of faces went to another specialist than their "
        f"label's; with none of them the system would read {100 * system.oracle_accuracy:.1f} %."
    )


def markdown(study: SubsetStudy) -> str:
    """Write the study as GitHub Markdown, in percent and points."""
    faces = "DRAWN FACES · " if study.drawn else ""
    lines = [f"# {faces}Specialists against everyone, {study.dataset}", ""]
    lines += [*(f"- {sentence}" for sentence in sentences(study)), ""]
    heads = ["people", "n test", *(name for _, name in TRAININGS)]
    heads += ["specialist − everyone", "p", "specialist − size-matched", "p", "seeds"]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in table_cells(study)]
    if study.systems:
        heads = ["system", "n test", "routed", "single network", "difference", "p", "misrouted"]
        lines += ["", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        lines += [f"| {' | '.join(cells)} |" for cells in system_cells(study)]
    lines += ["", *(f"- {note}" for note in notes(study))]
    limits = (*LIMITS_DRAWN, *LIMITS) if study.drawn else LIMITS
    return "\n".join([*lines, "", *(f"- {text}" for text in limits), ""])


def table_cells(study: SubsetStudy) -> Iterator[list[str]]:
    """Give the cells of the table of subsets, row by row."""
    for result in study.subsets:
        seeds = next(iter(result.arms.values())).seeds
        yield [
            people_text(result),
            f"{result.n_test:,}",
            *(arm_text(result.arms.get(training)) for training, _ in TRAININGS),
            difference_text(result.against_everyone),
            p_text(result.against_everyone),
            difference_text(result.against_matched),
            p_text(result.against_matched),
            ", ".join(str(seed) for seed in seeds),
        ]


def system_cells(study: SubsetStudy) -> Iterator[list[str]]:
    """Give the cells of the table of routed systems, row by row."""
    for system in study.systems:
        yield [
            f"by {system.router}",
            f"{system.n_test:,}",
            arm_text(system.routed),
            arm_text(system.single),
            difference_text(system.against_single),
            p_text(system.against_single),
            f"{100 * system.misrouted_fraction:.1f} %",
        ]


def notes(study: SubsetStudy) -> list[str]:
    """Say how the tables are to be read."""
    said = [
        "Percent of the people's test faces whose age group is read rightly: mean ± sd over "
        "seeds, with the 95 % interval of a bootstrap over clusters; differences are paired, in "
        "points.",
        "All arms take the same optimiser steps and are selected on the same people's validation "
        "faces; size-matched is a stratified sample of everyone as large as the subset.",
        f"p is corrected by Holm's procedure over all {study.n_compared} comparisons of the two "
        "tables; * marks 0.05 or less. Test and intervals hold the variance of trainings and of "
        "test faces (docs/METHODS.md); of one seed a side, McNemar's exact test.",
    ]
    if study.missing:
        said.append(f"Not run: {_shortened(study.missing)}.")
    return said


def _shortened(names: Sequence[str]) -> str:
    """List names, what all of them begin with once."""
    shared = os.path.commonprefix(list(names)).rpartition("-")[0] + "-"
    if len(names) == 1 or shared == "-":
        return ", ".join(names)
    return f"{shared}… {', '.join(name.removeprefix(shared) for name in names)}"


def as_data(study: SubsetStudy) -> dict[str, Any]:
    """Give the study as plain JSON-able values; rates and differences as fractions."""
    return {
        "dataset": study.dataset,
        "drawn": study.drawn,
        "sentences": sentences(study),
        "subsets": [
            {
                "people": people_text(result),
                "n_test": result.n_test,
                "arms": {name: vars(arm) for name, arm in result.arms.items()},
                "against_everyone": _compared_data(result.against_everyone),
                "against_matched": _compared_data(result.against_matched),
            }
            for result in study.subsets
        ],
        "systems": [
            {
                "router": system.router,
                "n_test": system.n_test,
                "misrouted_fraction": system.misrouted_fraction,
                "routed": vars(system.routed),
                "single": vars(system.single),
                "oracle_accuracy": system.oracle_accuracy,
                "against_single": _compared_data(system.against_single),
            }
            for system in study.systems
        ],
        "missing": study.missing,
        "n_compared": study.n_compared,
    }


def _compared_data(compared: Judged | None) -> dict[str, Any] | None:
    if compared is None:
        return None
    return {
        **vars(compared.difference),
        "p_holm": compared.p_holm,
        "minimum_detectable": compared.minimum_detectable,
        "verdict": compared.verdict,
    }
