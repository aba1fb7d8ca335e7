"""Specialists against everyone: what the runs of a suite like `subsets` answer, in numbers.

Everything comes from stored predictions. For each subset three arms are compared on its test
faces; and the system a user would deploy, a classifier that routes each face to a specialist, is
compared with the single network on all test faces. Words for it are in benchmark.results.verdicts
and pictures in benchmark.results.subset_figures.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.errors import RunError
from benchmark.experiment import Experiment, Subset
from benchmark.results.answers import Answers, Labels, read_answers
from benchmark.results.intervals import cluster_bootstrap
from benchmark.results.paired import Difference, Judged, Pair, judge, paired_difference
from benchmark.results.predictions import read_predictions
from benchmark.results.record import RunRecord
from benchmark.results.rows import Run, definition_key, read_run
from benchmark.tasks import TaskName

Training = Literal["subset", "everyone", "size_matched"]
Router = Literal["gender", "race"]
TASK: Final[TaskName] = "age_group"
"""What the networks of the study read; the question is about age."""


@dataclass(frozen=True)
class ArmResult:
    """One arm over its seeds, on its subset's (or everyone's) test faces; rates in [0, 1]."""

    name: str
    seeds: tuple[int, ...]
    n_train: int
    accuracy: float
    low: float
    high: float
    """Ends of the 95 % interval: bootstrap of the seed-averaged correctness over clusters."""
    sd: float | None
    """Over seeds; None for one."""


@dataclass(frozen=True)
class SubsetResult:
    """One subset: its arms, and the specialist against the two others. What is missing is None."""

    subset: Subset
    n_test: int
    arms: Mapping[Training, ArmResult]
    against_everyone: Judged | None
    against_matched: Judged | None


@dataclass(frozen=True)
class SystemResult:
    """Routing each face to the specialist that a classifier chooses, against the single network."""

    router: Router
    n_test: int
    misrouted_fraction: float
    """Of test faces sent to another specialist than their label's, averaged over seeds."""
    routed: ArmResult
    single: ArmResult
    oracle_accuracy: float
    """The same system if every face went to its own specialist: what routing right would give."""
    against_single: Judged | None


@dataclass(frozen=True)
class SubsetStudy:
    """The whole answer, in the order of the experiments asked for."""

    dataset: str
    drawn: bool
    subsets: tuple[SubsetResult, ...]
    systems: tuple[SystemResult, ...]
    missing: tuple[str, ...]
    """Experiments of the suite without a finished run."""
    n_compared: int
    """p-values that the correction is over."""


def study(
    records: Iterable[RunRecord], experiments: Sequence[Experiment], dataset: str
) -> SubsetStudy:
    """Read the runs of `experiments` on `dataset` and compare their arms.

    Arms are compared on the seeds that all of them have. Raises RunError where there is nothing
    to compare, or where runs were tested on different faces.
    """
    runs = _finished(records, experiments, dataset)
    by_people: dict[Subset, dict[Training, Experiment]] = defaultdict(dict)
    for item in experiments:
        if item.subset is not None:
            by_people[item.subset.people][item.subset.training] = item
    subsets = [_subset_result(people, arms, runs) for people, arms in by_people.items()]
    found = [result for result in subsets if result is not None]
    systems = [_system(router, by_people, experiments, runs) for router in ("gender", "race")]
    deployed = [system for system in systems if system is not None]
    if not found:
        raise RunError(
            f"no subset has finished runs of two arms on {dataset}",
            fix="`facebench run --suite subsets --seeds 0,1,2` makes them",
        )
    missing = tuple(item.name for item in experiments if not runs[item.name])
    drawn = any(run.setting.drawn for ours in runs.values() for run in ours.values())
    return _corrected(SubsetStudy(dataset, drawn, tuple(found), tuple(deployed), missing, 0))


Runs = Mapping[str, Mapping[int, Run]]
"""Finished runs by experiment name and seed."""


def _finished(
    records: Iterable[RunRecord], experiments: Sequence[Experiment], dataset: str
) -> Runs:
    names = {definition_key(item.as_dict()): item.name for item in experiments}
    found: dict[str, dict[int, Run]] = {item.name: {} for item in experiments}
    for record in records:
        run = read_run(record)
        name = names.get(run.definition_key)
        if name and run.setting.dataset == dataset and not run.ad_hoc and record.state == "done":
            found[name][record.seed] = run
    digests = {run.setting.split_digest for ours in found.values() for run in ours.values()}
    if len(digests) > 1:
        raise RunError(
            f"runs on {dataset} have {len(digests)} different splits",
            allowed="one split",
            fix="Give runs of another preparation of the data set a runs folder of their own",
        )
    return found


def _subset_result(
    people: Subset, arms: Mapping[Training, Experiment], runs: Runs
) -> SubsetResult | None:
    """Compare the arms of one subset on their common seeds; None where fewer than two were run."""
    with_runs = {arm: runs[item.name] for arm, item in arms.items() if runs[item.name]}
    seeds = _common(list(with_runs.values()))
    if len(with_runs) < 2 or not seeds:
        return None
    answers = {
        arm: read_answers([ours[seed].record for seed in seeds], (TASK,))
        for arm, ours in with_runs.items()
    }
    results = {
        arm: _arm_result(arms[arm].name, seeds, answers[arm], _n_train(with_runs[arm][seeds[0]]))
        for arm in with_runs
    }
    return SubsetResult(
        subset=people,
        n_test=len(next(iter(answers.values())).faces),
        arms=results,
        against_everyone=_compared(answers.get("everyone"), answers.get("subset")),
        against_matched=_compared(answers.get("size_matched"), answers.get("subset")),
    )


def _common(runs: Sequence[Mapping[int, Run]]) -> tuple[int, ...]:
    seeds = set.intersection(*(set(ours) for ours in runs)) if runs else set()
    return tuple(sorted(seeds))


def _n_train(run: Run) -> int:
    return int(run.about["dataset"]["counts"]["train"])


def _arm_result(name: str, seeds: tuple[int, ...], answers: Answers, n_train: int) -> ArmResult:
    right = answers.right(TASK)
    low, high = cluster_bootstrap(right.mean(axis=0)[:, None], answers.faces["cluster"].to_numpy())
    rates = right.mean(axis=1)
    sd = float(rates.std(ddof=1)) if len(rates) > 1 else None
    return ArmResult(name, seeds, n_train, float(rates.mean()), float(low[0]), float(high[0]), sd)


def _compared(reference: Answers | None, arm: Answers | None) -> Judged | None:
    """Compare an arm with its reference; p is corrected later, over the whole table."""
    if reference is None or arm is None:
        return None
    faces = arm.faces
    if not reference.faces["file"].equals(faces["file"]):
        raise RunError("two arms were tested on different faces", allowed="the same test faces")
    pair = Pair(
        truth=faces[TASK].to_numpy(),
        clusters=faces["cluster"].to_numpy(),
        reference=reference.predicted[TASK],
        arm=arm.predicted[TASK],
    )
    return _single(paired_difference(pair))


def _single(difference: Difference) -> Judged:
    """Judge a difference by itself."""
    return judge([("subsets", 0, difference)])[0]


def _system(
    router: Router,
    by_people: Mapping[Subset, Mapping[Training, Experiment]],
    experiments: Sequence[Experiment],
    runs: Runs,
) -> SystemResult | None:
    """Put a classifier before its specialists; None where a part of the system was not run."""
    specialists = [by_people.get(people, {}).get("subset") for people in _people_of(router)]
    classifier, single = (_of_everyone(experiments, task) for task in (router, TASK))
    parts = [*specialists, classifier, single]
    if any(part is None or not runs[part.name] for part in parts):
        return None
    named = [runs[part.name] for part in parts if part is not None]
    seeds = _common(named)
    if not seeds:
        return None
    alone = read_answers([named[-1][seed].record for seed in seeds], (TASK,))
    sent = read_answers([named[-2][seed].record for seed in seeds], (router,)).predicted[router]
    experts = np.stack(
        [
            [_on_all_faces(ours[seed].record, alone.faces) for seed in seeds]
            for ours in named[: len(specialists)]
        ]
    )
    own = np.broadcast_to(alone.faces[router].to_numpy(), sent.shape)
    routed = Answers(alone.faces, {TASK: _answers_of(experts, sent)})
    oracle = _answers_of(experts, own) == alone.faces[TASK].to_numpy()
    n_train = _n_train(named[-1][seeds[0]])
    return SystemResult(
        router=router,
        n_test=len(alone.faces),
        misrouted_fraction=float((sent != own).mean()),
        routed=_arm_result(f"routed by {router}", seeds, routed, n_train),
        single=_arm_result(parts[-1].name if parts[-1] else "", seeds, alone, n_train),
        oracle_accuracy=float(oracle.mean()),
        against_single=_compared(alone, routed),
    )


def _people_of(router: Router) -> list[Subset]:
    """Name the specialists' people in the order of the router's classes."""
    if router == "gender":
        return [Subset(gender=name) for name in ("male", "female")]
    return [Subset(race=name) for name in ("White", "Black", "Asian", "Indian", "Others")]


def _of_everyone(experiments: Sequence[Experiment], task: TaskName) -> Experiment | None:
    fitting = (item for item in experiments if item.subset is None and item.head.tasks == (task,))
    return next(fitting, None)


def _answers_of(experts: Labels, sent: Labels) -> npt.NDArray[np.int64]:
    """Take each face's answer from the expert it was sent to.

    experts: (n_experts, n_seeds, n_faces) classes; sent: (n_seeds, n_faces) experts.
    """
    chosen = np.take_along_axis(experts, sent[None].astype(np.int64), axis=0)[0]
    return np.asarray(chosen, dtype=np.int64)


def _on_all_faces(record: RunRecord, faces: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Read a specialist's answers on all test faces, its own and those outside its subset."""
    own = read_answers([record], (TASK,))
    outside = read_predictions(record.outside_path)
    answered = pd.concat(
        [
            pd.Series(own.predicted[TASK][0], index=own.faces["file"]),
            pd.Series(outside[f"{TASK}_pred"].to_numpy(), index=outside["file"]),
        ]
    )
    if set(answered.index) != set(faces["file"]) or len(answered) != len(faces):
        raise RunError(
            f"run {record.identity[:12]} answers on {len(answered)} test faces and not on the "
            f"{len(faces)} of the single network",
            source=str(record.outside_path),
            fix="Remove the run's folder and run the experiment again",
        )
    return np.asarray(answered.loc[faces["file"]].to_numpy(), dtype=np.int64)


def _corrected(found: SubsetStudy) -> SubsetStudy:
    """Judge all comparisons of the study together."""
    compared = [item for result in found.subsets
                for item in (result.against_everyone, result.against_matched)]  # fmt: skip
    compared += [system.against_single for system in found.systems]
    differences = [item.difference for item in compared if item is not None]
    judged = judge(("subsets", id(difference), difference) for difference in differences)

    def together(item: Judged | None) -> Judged | None:
        return judged[id(item.difference)] if item else None

    return replace(
        found,
        subsets=tuple(
            replace(
                result,
                against_everyone=together(result.against_everyone),
                against_matched=together(result.against_matched),
            )
            for result in found.subsets
        ),
        systems=tuple(
            replace(system, against_single=together(system.against_single))
            for system in found.systems
        ),
        n_compared=len(differences),
    )
