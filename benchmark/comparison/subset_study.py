"""Specialists against everyone: what the runs of a suite like `subsets` answer.

Everything comes from stored predictions. Of each subset up to three run groups are compared on its
test faces; and the system a user would deploy, a classifier that routes each face to a specialist,
is compared with the single network on all test faces. All comparisons are one family.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.cells import NOTHING
from benchmark.comparison.library import Library, RunGroup
from benchmark.comparison.statistics import Difference, Judged, Pair, judge, paired_difference
from benchmark.comparison.study_page import (
    Mark,
    Rate,
    StudyPage,
    StudyPanel,
    StudyPicture,
    StudySentence,
    StudyTable,
    change_text,
    rate_of,
    rate_text,
)
from benchmark.comparison.verdicts import SIGNIFICANT, joined, p_text, size, verdict_text
from benchmark.errors import RunError
from benchmark.evaluation.answers import Answers, read_answers
from benchmark.evaluation.intervals import Labels
from benchmark.evaluation.predictions import read_predictions
from benchmark.experiment.definition import Experiment, Subset
from benchmark.record import RunRecord
from benchmark.tasks import CLASS_NAMES, TaskName

Training = Literal["subset", "everyone", "size_matched"]
Router = Literal["gender", "race"]
TASK: Final[TaskName] = "age_group"
"""What the networks of the study predict; the question is about age."""
TRAININGS: Final[dict[Training, str]] = {
    "subset": "specialist",
    "everyone": "everyone",
    "size_matched": "size-matched",
}


@dataclass(frozen=True)
class GroupResult:
    """One run group, or routed system, on the test faces of a subset or of everyone."""

    name: str
    seeds: tuple[int, ...]
    n_train: int
    rate: Rate


@dataclass(frozen=True)
class SubsetResult:
    """One subset and its run groups, where they were run."""

    title: str
    """`women`, `Black women`, `Others`."""
    n_test: int
    groups: Mapping[Training, GroupResult]


@dataclass(frozen=True)
class SystemResult:
    """Routing each face to the specialist that a classifier chooses, against the single network."""

    router: Router
    n_test: int
    misrouted_fraction: float
    """Of test faces sent to another specialist than their label's, averaged over seeds."""
    routed: GroupResult
    single: GroupResult
    oracle_accuracy: float
    """The same system if every face went to its own specialist: what routing right would give."""


@dataclass(frozen=True)
class SubsetStudy:
    """The whole answer, in the order of the experiments asked for."""

    dataset: str
    drawn: bool
    subsets: tuple[SubsetResult, ...]
    systems: tuple[SystemResult, ...]
    missing: tuple[str, ...]
    """Experiments of the suite without a finished run, or with runs of several kinds."""
    compared: Mapping[tuple[str, str], Judged]
    """By a subset's title and the training that its specialist is compared with; of a system by
    its router and `single`. All are one family, which p is corrected over."""


Groups = Mapping[str, RunGroup]
"""Run groups by experiment name."""
Differences = dict[tuple[str, str], Difference]


def subset_study(library: Library, experiments: Sequence[Experiment], dataset: str) -> SubsetStudy:
    """Read the runs of `experiments` on `dataset` and compare their run groups.

    They are compared on the seeds that all of them have. Raises RunError where there is nothing to
    compare, or where runs have other test faces or start from other weights.
    """
    found = {item.name: library.run_group(item.name, dataset) for item in experiments}
    groups = {name: group for name, group in found.items() if isinstance(group, RunGroup)}
    _check_alike(groups, dataset)
    members: dict[Subset, dict[Training, Experiment]] = defaultdict(dict)
    for item in experiments:
        if item.subset is not None:
            members[item.subset.people][item.subset.training] = item
    differences: Differences = {}
    subsets = [_subset(subset, of, groups, differences) for subset, of in members.items()]
    systems = [
        _system("gender", members, experiments, groups, differences),
        _system("race", members, experiments, groups, differences),
    ]
    if not any(subsets):
        raise RunError(
            f"no subset has finished runs of two run groups on {dataset}",
            fix="`facebench run --suite subsets --seeds 0,1,2` makes them",
        )
    judged = judge(("subsets", key, difference) for key, difference in differences.items())
    return SubsetStudy(
        dataset,
        any(run.setting.drawn for group in groups.values() for run in group.runs),
        tuple(result for result in subsets if result is not None),
        tuple(system for system in systems if system is not None),
        tuple(name for name in found if name not in groups),
        {key: judged[key] for key in differences},
    )


def _check_alike(groups: Groups, dataset: str) -> None:
    """Refuse run groups that differ in more than their training faces and their task."""
    runs = [run for group in groups.values() for run in group.runs]
    for what, values in (
        ("splits", {run.setting.split_digest for run in runs}),
        ("weight files", {(run.about.get("weights") or {}).get("sha256") for run in runs}),
    ):
        if len(values) > 1:
            raise RunError(
                f"runs on {dataset} have {len(values)} different {what}",
                allowed=f"one of the {what}",
                fix="Give the runs of each a runs folder of their own",
            )


def _subset(
    subset: Subset, members: Mapping[Training, Experiment], groups: Groups, found: Differences
) -> SubsetResult | None:
    """Compare the run groups of one subset; None where fewer than two were run."""
    ours = {kind: groups[item.name] for kind, item in members.items() if item.name in groups}
    seeds = _common_seeds(list(ours.values()))
    if len(ours) < 2 or not seeds:
        return None
    gender = {"female": "women", "male": "men", None: ""}[subset.gender]
    title = f"{subset.race or ''} {gender}".strip()
    answers = {kind: _answers(group, seeds, TASK) for kind, group in ours.items()}
    for kind in ("everyone", "size_matched"):
        if "subset" in answers and kind in answers:
            found[title, kind] = _difference(answers[kind], answers["subset"])
    return SubsetResult(
        title,
        len(next(iter(answers.values())).faces),
        {kind: _result(ours[kind].name, seeds, answers[kind], ours[kind]) for kind in ours},
    )


def _common_seeds(groups: Sequence[RunGroup]) -> tuple[int, ...]:
    return (
        tuple(sorted(set.intersection(*(set(group.seeds) for group in groups)))) if groups else ()
    )


def _records(group: RunGroup, seeds: Sequence[int]) -> list[RunRecord]:
    return [run.record for run in group.runs if run.record.seed in seeds]


def _answers(group: RunGroup, seeds: Sequence[int], task: TaskName) -> Answers:
    return read_answers(_records(group, seeds), (task,))


def _result(name: str, seeds: tuple[int, ...], answers: Answers, group: RunGroup) -> GroupResult:
    rate = rate_of(answers.right(TASK), answers.faces["cluster"].to_numpy())
    if rate is None:
        raise RunError(f"{name} has no test face", allowed="at least one")
    return GroupResult(name, seeds, int(group.runs[0].about["dataset"]["counts"]["train"]), rate)


def _difference(reference: Answers, other: Answers) -> Difference:
    faces = other.faces
    if not reference.faces["file"].equals(faces["file"]):
        raise RunError("two run groups were tested on different faces", allowed="the same faces")
    truth, clusters = faces[TASK].to_numpy(), faces["cluster"].to_numpy()
    pair = Pair(truth, clusters, reference.predicted[TASK], other.predicted[TASK])
    return paired_difference(pair)


def _system(
    router: Router,
    members: Mapping[Subset, Mapping[Training, Experiment]],
    experiments: Sequence[Experiment],
    groups: Groups,
    found: Differences,
) -> SystemResult | None:
    """Put a classifier before its specialists; None where a part of the system was not run."""
    own = [Subset(**{router: name}) for name in CLASS_NAMES[router]]  # type: ignore[arg-type]
    parts = [members.get(subset, {}).get("subset") for subset in own]
    parts += [
        next((item for item in experiments if item.subset is None and item.head.tasks == (task,)),
             None)
        for task in (router, TASK)
    ]  # fmt: skip
    ready = [groups[part.name] for part in parts if part is not None and part.name in groups]
    seeds = _common_seeds(ready)
    if len(ready) < len(parts) or not seeds:
        return None
    *specialists, classifier, single = ready
    alone = _answers(single, seeds, TASK)
    sent = _answers(classifier, seeds, router).predicted[router]
    experts = np.stack(
        [
            [_on_all_faces(record, alone.faces) for record in _records(group, seeds)]
            for group in specialists
        ]
    )
    label = np.broadcast_to(alone.faces[router].to_numpy(), sent.shape)
    routed = Answers(alone.faces, {TASK: _chosen(experts, sent)})
    oracle = _chosen(experts, label) == alone.faces[TASK].to_numpy()
    found[router, "single"] = _difference(alone, routed)
    return SystemResult(
        router=router,
        n_test=len(alone.faces),
        misrouted_fraction=float((sent != label).mean()),
        routed=_result(f"routed by {router}", seeds, routed, single),
        single=_result(single.name, seeds, alone, single),
        oracle_accuracy=float(oracle.mean()),
    )


def _chosen(experts: Labels, sent: Labels) -> npt.NDArray[np.int64]:
    """Take each face's prediction from the expert it was sent to.

    experts: (n_experts, n_seeds, n_faces) classes; sent: (n_seeds, n_faces) experts.
    """
    chosen = np.take_along_axis(experts, sent[None].astype(np.int64), axis=0)[0]
    return np.asarray(chosen, dtype=np.int64)


def _on_all_faces(record: RunRecord, faces: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Read a specialist's predictions on all test faces, its own and those outside its subset."""
    own = read_answers([record], (TASK,))
    outside = read_predictions(record.outside_path)
    predicted = pd.concat(
        [
            pd.Series(own.predicted[TASK][0], index=own.faces["file"]),
            pd.Series(outside[f"{TASK}_pred"].to_numpy(), index=outside["file"]),
        ]
    )
    if set(predicted.index) != set(faces["file"]) or len(predicted) != len(faces):
        raise RunError(
            f"run {record.identity[:12]} has predictions on {len(predicted)} test faces and not on "
            f"the {len(faces)} of the single network",
            source=str(record.outside_path),
            fix="Remove the run's folder and run the experiment again",
        )
    return np.asarray(predicted.loc[faces["file"]].to_numpy(), dtype=np.int64)


def subset_page(study: SubsetStudy) -> StudyPage:
    """Write the study as sentences and tables."""
    notes = [
        "Age-group accuracy in percent: mean ± sd over seeds, with the 95 % interval of a "
        "bootstrap over clusters of test faces. Differences are paired, in percentage points (pp), "
        "with a 95 % interval from clusters of faces and, of two seeds or more, from seeds.",
        "All run groups take the same optimiser steps and are selected on the subset's validation "
        "faces; size-matched is a stratified sample of everyone as large as the subset.",
        f"p is corrected by Holm's procedure over all {len(study.compared)} comparisons of the "
        f"page, which are one question; {SIGNIFICANT}: significant; mdd: minimum detectable "
        "difference in pp. One seed a side: McNemar's exact test, of these two trainings alone, "
        "and no claim about training on a subset in general.",
    ]
    if study.missing:
        notes.append(f"Not run: {_shortened(study.missing)}.")
    sentences = (*_subset_sentences(study), *_system_sentences(study))
    title = f"Specialists against everyone, {study.dataset}"
    tables, pictures = tuple(_tables(study)), (_picture(study),)
    return StudyPage(title, sentences, tables, pictures, tuple(notes), study.drawn)


def _subset_sentences(study: SubsetStudy) -> Iterator[StudySentence]:
    """Say for which subsets the specialist is better, worse, or neither."""
    for kind, start in (
        ("everyone", "Against the network trained on everyone, on the same subset's faces,"),
        ("size_matched", "Against one trained on as many faces of everyone,"),
    ):
        by_verdict: dict[str, list[str]] = defaultdict(list)
        for result in study.subsets:
            if (judged := study.compared.get((result.title, kind))) is not None:
                by_verdict[judged.verdict].append(result.title)
        said = [
            f"is {verdict} for {joined(by_verdict[verdict])}"
            for verdict in ("better", "worse")
            if verdict in by_verdict
        ]
        total = sum(map(len, by_verdict.values()))
        rest = total - sum(len(by_verdict[verdict]) for verdict in ("better", "worse"))
        if rest:
            said.append(f"shows no significant difference for {rest} of {total} subsets")
        if said:
            yield StudySentence(f"{start} the specialist {'; it '.join(said)}.")


def _system_sentences(study: SubsetStudy) -> Iterator[StudySentence]:
    for system in study.systems:
        judged = study.compared[system.router, "single"]
        yield StudySentence(
            f"Routing each face by {system.router} to its specialist scores "
            f"{100 * system.routed.rate.mean:.1f} % on all test faces, the single network "
            f"{100 * system.single.rate.mean:.1f} %: {_difference_text(judged)} pp, "
            f"{verdict_text(judged)}. {100 * system.misrouted_fraction:.1f} % of faces went to "
            "another specialist than their label's; with none of them the system would score "
            f"{100 * system.oracle_accuracy:.1f} %."
        )


def _difference_text(judged: Judged | None) -> str:
    if judged is None:
        return NOTHING
    found = judged.difference
    return change_text(found.accuracy, found.low, found.high)


def _p_text(judged: Judged | None) -> str:
    if judged is None:
        return NOTHING
    detectable = f" (mdd {size(judged.minimum_detectable)})"
    return p_text(judged.p_holm) + (f" {SIGNIFICANT}" if judged.significant else detectable)


def _tables(study: SubsetStudy) -> Iterator[StudyTable]:
    rows, names = [], []
    for result in study.subsets:
        judged = [study.compared.get((result.title, kind)) for kind in ("everyone", "size_matched")]
        groups = [result.groups.get(kind) for kind in TRAININGS]
        rates = (rate_text(group.rate if group else None) for group in groups)
        tests = (text for item in judged for text in (_difference_text(item), _p_text(item)))
        rows.append((f"{result.title}, n {result.n_test:,}", *rates, *tests))
        names.append(tuple(group.name for group in groups if group))
    heads = ("subset", *TRAININGS.values(), "− everyone", "p", "− size-matched", "p ")
    caption = "Age-group accuracy: trained on the subset, on everyone, on as many of everyone"
    yield StudyTable("specialists-subsets", caption, heads, tuple(rows), tuple(names))
    if study.systems:
        heads = ("system", "n test", "routed", "single network", "difference", "p", "misrouted")
        caption = "A classifier that sends each face to a specialist, against one network"
        rows = [
            (
                f"by {system.router}",
                f"{system.n_test:,}",
                rate_text(system.routed.rate),
                rate_text(system.single.rate),
                _difference_text(study.compared[system.router, "single"]),
                _p_text(study.compared[system.router, "single"]),
                f"{100 * system.misrouted_fraction:.1f} %",
            )
            for system in study.systems
        ]
        names = [(system.single.name,) for system in study.systems]
        yield StudyTable("specialists-systems", caption, heads, tuple(rows), tuple(names))


def _picture(study: SubsetStudy) -> StudyPicture:
    marks: dict[str, list[Mark]] = defaultdict(list)
    titles = {
        "everyone": "against one trained on everyone",
        "size_matched": "against one trained on as many of everyone",
        "single": "every face, routed by a classifier, against one network",
    }
    sizes = {item.title: item.n_test for item in study.subsets}
    sizes |= {item.router: item.n_test for item in study.systems}
    for (of, against), judged in study.compared.items():
        found = judged.difference
        label = f"{'routed by ' if against == 'single' else ''}{of}  n {sizes[of]:,}"
        ends = (found.accuracy, found.low, found.high)
        marks[titles[against]].append(Mark(label, *ends, filled=judged.significant))
    return StudyPicture(
        "",
        "Does a specialist predict the age group of its subset better?",
        "difference in accuracy on the same test faces, pp, 95 % interval; right of 0: the "
        "specialist (or the routed system) is better; filled: significant, Holm's correction over "
        f"{len(study.compared)} comparisons",
        tuple(StudyPanel(TASK, title, tuple(marks[title])) for title in titles.values()
              if title in marks),
        of_differences=True,
    )  # fmt: skip


def _shortened(names: Sequence[str]) -> str:
    """List names, what all of them begin with once."""
    shared = os.path.commonprefix(list(names)).rpartition("-")[0] + "-"
    if len(names) == 1 or shared == "-":
        return ", ".join(names)
    return f"{shared}… {', '.join(name.removeprefix(shared) for name in names)}"


def subset_data(study: SubsetStudy) -> dict[str, Any]:
    """Give the study as plain JSON-able values; rates and differences as fractions."""
    data = asdict(study)
    del data["compared"]
    compared = [
        {"of": of, "against": against, **asdict(item), "verdict": item.verdict}
        for (of, against), item in study.compared.items()
    ]
    said = [sentence.words for sentence in subset_page(study).sentences]
    return data | {"compared": compared, "sentences": said}
