"""The leak taken apart: from a leaky score to the honest one of the same network.

Everything is computed from stored predictions and from `exposure.csv`, which says how training met
each test face. A leaky run is scored on its own test part, as the study scored itself, and on the
leak-free test faces, on which every further model of the chain is scored too; so a step that
changes the models is a paired difference on common faces. All is LEAKY but what is never met or
honest.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.cells import NOTHING
from benchmark.comparison.library import Library, RunGroup
from benchmark.comparison.statistics import difference_of
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
from benchmark.comparison.verdicts import points
from benchmark.errors import RunError
from benchmark.evaluation.answers import read_answers
from benchmark.evaluation.predictions import read_predictions
from benchmark.experiment.definition import Experiment, StudyRow
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

LEAK_SUITES: Final = ("headline", "leak", "leak_vgg16")
"""What `facebench leak` and the report read; in the order of their networks."""
PUBLISHED: Final = "published"
HONEST: Final = "honest"
CHAIN: Final = {
    "duplicates": "training set",
    "batches": "batching",
    "scaling": "input scaling",
    HONEST: "selection",
}
"""The models after `published`, each by the ending of its name, and what it changes."""
MODEL_TITLES: Final = {
    "duplicates": "training set without the test faces' pictures",
    "batches": "… and batches drawn anew each epoch",
    "scaling": "… and input scaled as the weights demand",
    HONEST: "honest: … and selected on faces not trained on",
}
ALONE: Final = {
    "split": "training set: no test file",
    "only_duplicates": "training set and test population: one face per cluster",
    "only_batches": "batching: drawn anew each epoch",
    "only_scaling": "input scaling: as the weights demand",
    "only_selection": "selection: on faces not trained on",
}
"""One condition of the protocol changed by itself; by ending."""
EXPOSURES: Final = {
    "seen": "LEAKY · of these, met in training",
    "related": "LEAKY · of these, met in validation or as another picture of the cluster",
    "clean": "of these, never met",
}
NOT_RUN: Final = "not run"


@dataclass(frozen=True)
class Side:
    """The models of a run group on some test faces."""

    faces: pd.DataFrame
    """file and cluster."""
    right: Mapping[TaskName, npt.NDArray[np.bool_]]
    """Of each predicted task (n_seeds, n_faces)."""
    seeds: tuple[int, ...]

    def on(self, chosen: npt.NDArray[np.bool_]) -> "Side":
        """Keep the chosen faces."""
        right = {task: values[:, chosen] for task, values in self.right.items()}
        return dataclasses.replace(self, faces=self.faces[chosen], right=right)

    def of_seed(self, seed: int) -> "Side":
        """Keep one model: that of this seed, else the first."""
        place = self.seeds.index(seed) if seed in self.seeds else 0
        right = {task: values[[place]] for task, values in self.right.items()}
        return Side(self.faces, right, (self.seeds[place],))


@dataclass(frozen=True)
class LeakScore:
    """One row of the table: some models on some faces."""

    key: str
    title: str
    leaky: bool
    n_test: int
    rates: Mapping[TaskName, Rate | None]
    experiment: str


@dataclass(frozen=True)
class Change:
    """By how much accuracy moves at a step, in [-1, 1]."""

    mean: float
    low: float
    """Ends of the 95 % interval, from clusters of faces and, `over_seeds`, from seeds."""
    high: float
    over_seeds: bool


@dataclass(frozen=True)
class Step:
    """What a step changes; no `changes` where its models were not run."""

    key: str
    title: str
    experiments: tuple[str, ...]
    changes: Mapping[TaskName, Change] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkLeak:
    """One network: its scores from leaky to honest, and what lies between."""

    label: str
    """The experiment's name without the ending."""
    scores: tuple[LeakScore, ...]
    steps: tuple[Step, ...]
    alone: tuple[Step, ...]
    study: StudyRow | None
    """What the study printed, where architecture and weights are its own."""
    notes: tuple[str, ...]

    def score(self, key: str) -> LeakScore | None:
        """Find a score by its key."""
        return next((score for score in self.scores if score.key == key), None)


@dataclass(frozen=True)
class LeakStudy:
    """All networks of a suite like `leak`, on one data set."""

    dataset: str
    drawn: bool
    networks: tuple[NetworkLeak, ...]
    missing: tuple[str, ...]


def leak_study(library: Library, experiments: Sequence[Experiment], dataset: str) -> LeakStudy:
    """Read the finished runs of `experiments` on `dataset` and take the leak apart.

    Raises RunError where no network was run under the protocol `published`, or the files of a run
    do not fit together.
    """
    groups: dict[str, dict[str, RunGroup]] = {}
    absent: dict[str, list[str]] = {}
    studies: dict[str, Experiment] = {}
    names = {item.name for item in experiments}
    for item in experiments:
        label, ending = _place(item.name, names)
        studies.setdefault(label, item)
        found = library.run_group(item.name, dataset)
        if isinstance(found, RunGroup):
            groups.setdefault(label, {})[ending] = found
        else:
            why = "" if found.why == NOT_RUN else f" ({found.why})"
            absent.setdefault(label, []).append(f"{item.name}{why}")
    networks = tuple(
        _network(label, ours, studies[label]) for label, ours in groups.items() if PUBLISHED in ours
    )
    if not networks:
        raise RunError(
            f"no network was run under the protocol `published` on {dataset}",
            fix="`facebench run --suite leak --seeds 0,1,2` makes such runs",
        )
    missing = [
        text for label, texts in absent.items() for text in (texts if label in groups else [label])
    ]
    drawn = any(run.setting.drawn for ours in groups.values() for group in ours.values()
                for run in group.runs)  # fmt: skip
    return LeakStudy(dataset, drawn, networks, tuple(missing))


def _place(name: str, names: Collection[str]) -> tuple[str, str]:
    """Give an experiment's network and its ending.

    A row that is registered anyway, under no ending, is the honest one of those named after it.
    """
    if f"{name}-{PUBLISHED}" in names:
        return name, HONEST
    label, _, ending = name.rpartition("-")
    return label, ending


def _network(label: str, groups: Mapping[str, RunGroup], first: Experiment) -> NetworkLeak:
    sides = {ending: _side(group) for ending, group in groups.items()}
    chain = {ending: sides[ending] for ending in CHAIN if ending in sides}
    common = None
    if chain:
        faces = next(iter(chain.values())).faces
        if any(not side.faces["file"].equals(faces["file"]) for side in chain.values()):
            raise RunError(
                f"the models of {label} were tested on different faces",
                allowed="the test faces of one leak-free split",
                fix="Run them again on the data set as it is prepared now",
            )
        common = _on_common_faces(groups[PUBLISHED], faces)
    notes = [] if common or not chain else [
        f"{label}: its leaky runs hold no predictions on the leak-free test faces (made by an "
        "earlier version, or on another split), so that its first step changes the test "
        "population too."
    ]  # fmt: skip
    return NetworkLeak(
        label,
        tuple(_scores(groups, sides, common)),
        tuple(_steps(groups, sides, common)),
        tuple(
            Step(ending, title, _names(groups, PUBLISHED, ending),
                 _changes(sides[PUBLISHED], sides[ending]))
            for ending, title in ALONE.items()
            if ending in sides
        ),
        first.study,
        (*notes, *_training_notes(label, groups, first)),
    )  # fmt: skip


def _names(groups: Mapping[str, RunGroup], *endings: str) -> tuple[str, ...]:
    return tuple(groups[ending].name for ending in endings)


def _side(group: RunGroup) -> Side:
    answers = read_answers([run.record for run in group.runs], group.tasks)
    right = {task: answers.right(task) for task in group.tasks}
    return Side(answers.faces[["file", "cluster"]], right, group.seeds)


def _on_common_faces(group: RunGroup, faces: pd.DataFrame) -> Side | None:
    """Score leaky models on the leak-free test `faces`; None where a run did not predict them."""
    tables = []
    for run in group.runs:
        parts = [read_predictions(run.record.predictions_path).query("part == 'test'")]
        if run.record.outside_path.is_file():
            parts.append(read_predictions(run.record.outside_path))
        table = pd.concat(parts).drop_duplicates("file").set_index("file")
        if not faces["file"].isin(table.index).all():
            return None
        tables.append(table.loc[faces["file"]])
    right = {
        task: np.stack([(table[task] == table[f"{task}_pred"]).to_numpy() for table in tables])
        for task in group.tasks
    }
    return Side(faces, right, group.seeds)


def _scores(
    groups: Mapping[str, RunGroup], sides: Mapping[str, Side], common: Side | None
) -> Iterator[LeakScore]:
    published, name = sides[PUBLISHED], groups[PUBLISHED].name
    yield _score(PUBLISHED, "LEAKY · our replay, on its own test faces", published, name)
    exposure = _exposure(groups[PUBLISHED], published.faces["file"])
    for key, title in EXPOSURES.items():
        yield _score(key, title, published.on(exposure == key), name)
    if common:
        yield _score("common", "LEAKY · our replay, on the leak-free test faces", common, name)
    for ending, title in MODEL_TITLES.items():
        if ending in sides:
            group = groups[ending]
            alone = ending == HONEST and not any(item in sides for item in list(CHAIN)[:-1])
            words = "honest: trained, selected and tested without the leak" if alone else title
            words = f"LEAKY · {words}" if group.leaky else words
            yield _score(ending, words, sides[ending], group.name)


def _score(key: str, title: str, side: Side, experiment: str) -> LeakScore:
    clusters = side.faces["cluster"].to_numpy()
    rates = {task: rate_of(right, clusters) for task, right in side.right.items()}
    return LeakScore(key, title, title.startswith("LEAKY"), len(side.faces), rates, experiment)


def _exposure(group: RunGroup, files: pd.Series) -> npt.NDArray[np.str_]:
    """Read how each test face was met, in the order of `files`; equal for all seeds."""
    record = group.runs[0].record
    short, fix = record.identity[:12], "Remove the run's folder and run the experiment again"
    try:
        met = pd.read_csv(record.exposure_path, dtype=str).set_index("file")["exposure"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"exposure.csv of run {short} cannot be read: {error}",
            source=str(record.exposure_path),
            fix=fix,
        ) from error
    if set(met.index) != set(files) or not set(met) <= set(EXPOSURES):
        raise RunError(
            f"exposure.csv of run {short} is not about its test faces",
            allowed=f"each test face once, as {', '.join(EXPOSURES)}",
            source=str(record.exposure_path),
            fix=fix,
        )
    return np.asarray(met.loc[files].to_numpy(dtype=str))


def _steps(
    groups: Mapping[str, RunGroup], sides: Mapping[str, Side], common: Side | None
) -> Iterator[Step]:
    """Give all steps in their order; what was not run is changed by the next that was."""
    before, before_ending, together = sides[PUBLISHED], PUBLISHED, []
    population = "test population"
    if common:
        changes = _changes(before, common, same_models=True)
        yield Step("common", population, _names(groups, PUBLISHED), changes)
        before = common
    else:
        yield Step("common", population, ())
        together.append(population)
    for ending, title in CHAIN.items():
        if ending not in sides:
            yield Step(ending, title, ())
            together.append(title)
            continue
        words = ", ".join([*together, title]) + (", together" if together else "")
        changes = _changes(before, sides[ending])
        yield Step(ending, words, _names(groups, before_ending, ending), changes)
        before, before_ending, together = sides[ending], ending, []


def _changes(before: Side, after: Side, *, same_models: bool = False) -> dict[TaskName, Change]:
    """Compare two sides, on the same faces or on others; of the same models, seed by seed.

    Where one side has one seed and the other several, one seed of each is compared.
    """
    if min(len(before.seeds), len(after.seeds)) == 1:
        seed = next((seed for seed in after.seeds if seed in before.seeds), -1)
        before, after = before.of_seed(seed), after.of_seed(seed)
    faces = pd.concat([before.faces, after.faces]).drop_duplicates("file")
    found = {}
    for task in after.right:
        ours, reference = (_values(side, task, faces["file"]) for side in (after, before))
        if same_models:
            ours, reference = ours - reference, np.zeros_like(ours)
        result = difference_of(ours, reference, faces["cluster"].to_numpy())
        over_seeds = len(after.seeds) > 1
        found[task] = Change(result.accuracy, result.low, result.high, over_seeds)
    return found


def _values(side: Side, task: TaskName, files: pd.Series) -> npt.NDArray[np.float64]:
    """Spread each seed's accuracy over all `files`, (n_seeds, n_files), so that its mean stays.

    A face that the side was tested on has its own share of the deviation from the mean, all others
    none: clusters on both sides then count as paired, others as independent. On `files` that are
    all its own, these are right (1) and wrong (0).
    """
    right = side.right[task].astype(np.float64)
    means = right.mean(axis=1, keepdims=True)
    values = np.repeat(means, len(files), axis=1)
    places = pd.Index(files).get_indexer(side.faces["file"])
    values[:, places] += (right - means) * len(files) / right.shape[1]
    return values


def _training_notes(label: str, groups: Mapping[str, RunGroup], first: Experiment) -> Iterator[str]:
    recipe = first.recipe
    if first.study is None:
        yield (
            f"{label}: the protocol alone is the study's (split, batching, input scaling, "
            f"selection). Its recipe is not: schedule {recipe.schedule}, batches of "
            f"{recipe.batch_size}, faces of {first.backbone.input_px} px."
        )
    histories = {
        f"{group.name}, seed {run.record.seed}": run.record.history()
        for group in groups.values()
        for run in group.runs
    }
    epochs = sorted({len(history) for history in histories.values()})
    span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    until = recipe.until_train_accuracy
    if until is None:
        yield f"{label}: trained for {span} epochs."
        return
    columns = [f"fitted/{task}/accuracy" for task in first.head.tasks]
    short = [
        f"{name} ({100 * fitted:.1f} %)"
        for name, history in histories.items()
        if set(columns) <= set(history.columns)
        if (fitted := float(history[columns].iloc[-1].min())) < until
    ]
    yield (
        f"{label}: each training ended when every task was at {100 * until:.0f} % on its training "
        f"faces in eval mode, at most after {recipe.max_epochs} epochs; after {span} epochs."
        + (f" Not at {100 * until:.0f} % then: {', '.join(short)}." if short else "")
    )


def leak_page(study: LeakStudy) -> StudyPage:
    """Write the study as sentences and tables."""
    notes = [
        "Accuracy in percent: mean ± sd over seeds, with the 95 % interval of a bootstrap over "
        "clusters of test faces. Changes in percentage points (pp), with a 95 % interval from "
        "clusters of faces and, of two seeds or more, from seeds.",
        "From the replay on the leak-free test faces on, every model is scored on the same faces; "
        "a leaky model has met most of them. The test population is changed by scoring the same "
        "models on other faces. Under `one condition by itself` each model has the test part of "
        "its own split.",
        "The steps are cumulative and in one order of many: what a step is worth depends on it. "
        "The last step, selection, also draws the training part by our rule.",
    ]
    changes = [change for network in study.networks for step in network.steps
               for change in step.changes.values()]  # fmt: skip
    if any(not change.over_seeds for change in changes):
        notes.append(
            "Changes with one seed on a side are of these trainings alone: their intervals hold "
            "no variance over seeds."
        )
    notes += [note for network in study.networks for note in network.notes]
    if study.missing:
        notes.append(f"Not run: {', '.join(study.missing)}.")
    return StudyPage(
        f"LEAKY · What a leak is worth, {study.dataset}",
        tuple(sentence for network in study.networks for sentence in _sentences(network)),
        tuple(table for network in study.networks for table in _tables(network)),
        tuple(_picture(network) for network in study.networks),
        tuple(notes),
        study.drawn,
    )


def _sentences(network: NetworkLeak) -> Iterator[StudySentence]:
    published = network.scores[0]
    said = ", ".join(
        f"{_triple(score.rates)} % on the {score.n_test:,} test faces {words}"
        for key, words in (("seen", "met in training"), ("clean", "never met"))
        if (score := network.score(key)) is not None and score.n_test
    )
    printed = ""
    if network.study is not None:
        printed = f"the study printed {_printed(network.study)} % for its row {network.study.row}; "
    yield StudySentence(
        f"{network.label}: {printed}our replay scores LEAKY {_triple(published.rates)} % "
        f"({' / '.join(TASK_TITLES[task] for task in published.rates)}), {said}.",
        (published.experiment,),
    )
    honest = network.score(HONEST)
    if honest is not None:
        fall = " / ".join(
            points(_mean(honest.rates, task) - _mean(published.rates, task))
            for task in honest.rates
        )
        yield StudySentence(
            f"{network.label}, trained, selected and tested without the leak: "
            f"{_triple(honest.rates)} % on {honest.n_test:,} faces; against the leaky score "
            f"{fall} pp.",
            (published.experiment, honest.experiment),
        )


def _mean(rates: Mapping[TaskName, Rate | None], task: TaskName) -> float:
    rate = rates[task]
    return float("nan") if rate is None else rate.mean


def _triple(rates: Mapping[TaskName, Rate | None]) -> str:
    return " / ".join(f"{100 * _mean(rates, task):.1f}" for task in rates)


def _printed(study: StudyRow) -> str:
    rates = (getattr(study, task) for task in TASKS)
    return " / ".join(NOTHING if rate is None else f"{100 * rate:.1f}" for rate in rates)


def _tables(network: NetworkLeak) -> Iterator[StudyTable]:
    titles = tuple(TASK_TITLES[task] for task in TASKS)
    rows, name = [], f"leak-{network.label}"
    if network.study is not None:
        printed = _printed(network.study).split(" / ")
        rows.append((f"LEAKY · printed by the study, row {network.study.row}", NOTHING, *printed))
    rows += [
        (score.title, f"{score.n_test:,}", *(rate_text(score.rates.get(task)) for task in TASKS))
        for score in network.scores
    ]
    of = [(network.scores[0].experiment,)] * (network.study is not None)
    of += [(score.experiment,) for score in network.scores]
    caption = f"LEAKY · {network.label}: from the leaky score to the honest one"
    yield StudyTable(name, caption, ("scored", "n test", *titles), tuple(rows), tuple(of))
    for kind, steps, caption in (
        ("steps", network.steps, "what each step changes, and by how much (pp)"),
        ("alone", network.alone, "one condition by itself, against the replay (pp)"),
    ):
        if steps:
            yield StudyTable(
                f"{name}-{kind}",
                f"LEAKY · {network.label}: {caption}",
                ("changed", *titles),
                tuple(
                    (_step_text(step), *(_change_text(step, task) for task in TASKS))
                    for step in steps
                ),
                tuple(step.experiments for step in steps),
            )


def _step_text(step: Step) -> str:
    alone = any(not change.over_seeds for change in step.changes.values())
    return f"LEAKY · {step.title}{' (one seed each)' if alone else ''}"


def _change_text(step: Step, task: TaskName) -> str:
    change = step.changes.get(task)
    if change is None:
        return NOTHING if step.changes else NOT_RUN
    return change_text(change.mean, change.low, change.high)


def _picture(network: NetworkLeak) -> StudyPicture:
    panels = []
    for task in TASKS:
        marks = [
            Mark(f"{score.title}, n {score.n_test:,}", rate.mean, rate.low, rate.high,
                 leaky=score.leaky)
            for score in network.scores
            if (rate := score.rates.get(task)) is not None
        ]  # fmt: skip
        study = network.study
        if study is not None and (printed := getattr(study, task)) is not None:
            title = f"LEAKY · printed by the study, row {study.row}"
            marks.insert(0, Mark(title, printed, printed, printed, leaky=True))
        if marks:
            panels.append(StudyPanel(task, TASK_TITLES[task], tuple(marks)))
    title = f"LEAKY · From a leaky score to the honest one: {network.label}"
    caption = "accuracy on test faces, 95 % interval; red diamonds: LEAKY"
    return StudyPicture(network.label, title, caption, tuple(panels))


def leak_data(study: LeakStudy) -> dict[str, Any]:
    """Give the study as plain JSON-able values; rates and changes as fractions."""
    data = dataclasses.asdict(study)
    return data | {"sentences": [sentence.words for sentence in leak_page(study).sentences]}
