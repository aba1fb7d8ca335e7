"""The leak taken apart: from a leaky score to the honest one of the same network.

Everything is computed from stored predictions and from `exposure.csv`, which says how training met
each test face. A leaky run is scored on its own test part, as the study scored itself, and on the
leak-free test faces, on which every further model of the chain is scored too; so a step that
changes the models is a paired difference on common faces. All is LEAKY but what is never met or
honest.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.library import Library, NotRun, RunGroup
from benchmark.comparison.statistics import difference_of
from benchmark.comparison.wording import (
    Mark,
    Sentence,
    StudyPage,
    StudyPanel,
    StudyPicture,
    StudyTable,
    change_text,
    points,
    rate_of,
    rate_text,
)
from benchmark.errors import RunError
from benchmark.evaluation.predictions import read_predictions, read_run_predictions
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

LEAK_SUITES: Final = ("headline", "leak", "leak_vgg16")
"""What `facebench leak` and the report read; in the order of their networks."""
PUBLISHED: Final = "published"
HONEST: Final = "honest"
CHAIN: Final = {
    "duplicates": ("training set", "training set without the test faces' pictures"),
    "batches": ("batching", "… and batches drawn anew each epoch"),
    "scaling": ("input scaling", "… and input scaled as the weights demand"),
    HONEST: ("selection", "honest: … and selected on faces not trained on"),
}
"""The models after `published`, by the ending of their names: what each changes, and its title."""
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
NOTHING: Final = "–"


@dataclass(frozen=True)
class Side:
    """The models of a run group on some test faces."""

    faces: pd.DataFrame
    """file and cluster."""
    right: Mapping[TaskName, npt.NDArray[np.bool_]]
    """Of each predicted task (n_seeds, n_faces)."""
    seeds: tuple[int, ...]

    def part(self, faces: Any = slice(None), seeds: Any = slice(None)) -> "Side":
        """Keep the chosen faces, or models."""
        right = {task: values[seeds][:, faces] for task, values in self.right.items()}
        return Side(self.faces[faces], right, self.seeds[seeds])


Values = dict[str, Any]
"""Plain values under the names that `--json` has."""


def leak_study(library: Library, experiments: Sequence[Experiment], dataset: str) -> Values:
    """Read the finished runs of `experiments` on `dataset` and take the leak apart.

    Gives dataset, drawn, missing (what was not run) and networks: of each its label, scores from
    leaky to honest, steps between them, conditions changed `alone`, the study's row where
    architecture and weights are its own, and notes. Rates and changes are fractions, with the ends
    of their 95 % intervals; a step that was not run has no changes. A row that is registered under
    no ending is the honest one of those named after it. Raises RunError where no network was run
    under the protocol `published`, or the files of a run do not fit together.
    """
    groups: dict[str, dict[str, RunGroup]] = {}
    absent: dict[str, list[str]] = {}
    firsts: dict[str, Experiment] = {}
    names = {item.name for item in experiments}
    for item in experiments:
        label, _, ending = item.name.rpartition("-")
        if f"{item.name}-{PUBLISHED}" in names:
            label, ending = item.name, HONEST
        firsts.setdefault(label, item)
        found = library.run_group(item.name, dataset)
        if isinstance(found, NotRun):
            why = "" if found.why == NOT_RUN else f" ({found.why})"
            absent.setdefault(label, []).append(f"{item.name}{why}")
        else:
            groups.setdefault(label, {})[ending] = found
    networks = [
        _network(label, ours, firsts[label]) for label, ours in groups.items() if PUBLISHED in ours
    ]
    if not networks:
        raise RunError(
            f"no network was run under the protocol `published` on {dataset}",
            fix="`facebench run --suite leak --seeds 0,1,2` makes such runs",
        )
    missing = [
        text for label, texts in absent.items() for text in (texts if label in groups else [label])
    ]
    drawn = any(group.setting.drawn for ours in groups.values() for group in ours.values())
    return {"dataset": dataset, "drawn": drawn, "networks": networks, "missing": missing}


def _network(label: str, groups: Mapping[str, RunGroup], first: Experiment) -> Values:
    sides = {ending: _side(group) for ending, group in groups.items()}
    chain = [sides[ending] for ending in CHAIN if ending in sides]
    notes, common = [], None
    if chain:
        faces = chain[0].faces
        if any(not side.faces["file"].equals(faces["file"]) for side in chain):
            raise RunError(
                f"the models of {label} were tested on different faces",
                allowed="the test faces of one leak-free split",
                fix="Run them again on the data set as it is prepared now",
            )
        common = _on_common_faces(groups[PUBLISHED], faces)
        if common is None:
            notes.append(
                f"{label}: its leaky runs hold no predictions on the leak-free test faces (made by "
                "an earlier version, or on another split), so that its first step changes the test "
                "population too."
            )
    published, name = sides[PUBLISHED], groups[PUBLISHED].name
    return {
        "label": label,
        "scores": list(_scores(groups, sides, common)),
        "steps": list(_steps(groups, sides, common)),
        "alone": [
            _step(ending, title, (name, groups[ending].name), _changes(published, sides[ending]))
            for ending, title in ALONE.items()
            if ending in sides
        ],
        "study": dataclasses.asdict(first.study) if first.study else None,
        "notes": [*notes, *_training_notes(label, groups, first)],
    }


def _side(group: RunGroup) -> Side:
    answers = read_run_predictions([run.record for run in group.runs], group.tasks)
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
) -> Iterator[Values]:
    published, name = sides[PUBLISHED], groups[PUBLISHED].name
    rows = [(PUBLISHED, "LEAKY · our replay, on its own test faces", published, name)]
    exposure = _exposure(groups[PUBLISHED], published.faces["file"])
    for key, title in EXPOSURES.items():
        rows.append((key, title, published.part(faces=exposure == key), name))
    if common:
        rows.append(("common", "LEAKY · our replay, on the leak-free test faces", common, name))
    models = [ending for ending in CHAIN if ending in sides]
    for ending in models:
        title = CHAIN[ending][1]
        if models == [HONEST]:
            title = "honest: trained, selected and tested without the leak"
        leaky = "LEAKY · " if groups[ending].leaky else ""
        rows.append((ending, f"{leaky}{title}", sides[ending], groups[ending].name))
    for key, title, side, experiment in rows:
        clusters = side.faces["cluster"].to_numpy()
        yield {
            "key": key,
            "title": title,
            "leaky": title.startswith("LEAKY"),
            "n_test": len(side.faces),
            "rates": {task: rate_of(right, clusters) for task, right in side.right.items()},
            "experiment": experiment,
        }


def _exposure(group: RunGroup, files: pd.Series) -> npt.NDArray[np.str_]:
    """Read how each test face was met, in the order of `files`; equal for all seeds."""
    record = group.runs[0].record
    try:
        met = pd.read_csv(record.exposure_path, dtype=str).set_index("file")["exposure"]
        fault = "" if set(met.index) == set(files) and set(met) <= set(EXPOSURES) else (
            "is not about its test faces"
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        fault = f"cannot be read: {error}"
    if fault:
        raise RunError(
            f"exposure.csv of run {record.identity[:12]} {fault}",
            allowed=f"each test face once, as {', '.join(EXPOSURES)}",
            source=str(record.exposure_path),
            fix="Remove the run's folder and run the experiment again",
        )
    return np.asarray(met.loc[files].to_numpy(dtype=str))


def _steps(
    groups: Mapping[str, RunGroup], sides: Mapping[str, Side], common: Side | None
) -> Iterator[Values]:
    """Give all steps in their order; what was not run is changed by the next that was."""
    before, name, together = sides[PUBLISHED], groups[PUBLISHED].name, []
    population = "test population"
    if common:
        yield _step("common", population, (name,), _changes(before, common, same_models=True))
        before = common
    else:
        yield _step("common", population)
        together.append(population)
    for ending, (changed, _) in CHAIN.items():
        together.append(changed)
        if ending not in sides:
            yield _step(ending, changed)
            continue
        words = ", ".join(together) + (", together" if len(together) > 1 else "")
        changes = _changes(before, sides[ending])
        yield _step(ending, words, (name, groups[ending].name), changes)
        before, name, together = sides[ending], groups[ending].name, []


def _step(
    key: str, title: str, experiments: tuple[str, ...] = (), changes: Values | None = None
) -> Values:
    return {"key": key, "title": title, "experiments": experiments, "changes": changes or {}}


def _changes(before: Side, after: Side, *, same_models: bool = False) -> Values:
    """Compare two sides, on the same faces or on others; of the same models, seed by seed.

    Where one side has one seed and the other several, one seed of each is compared.
    """
    if min(len(before.seeds), len(after.seeds)) == 1:
        shared = [seed for seed in after.seeds if seed in before.seeds]
        one, other = (side.seeds.index(shared[0]) if shared else 0 for side in (before, after))
        before = before.part(seeds=slice(one, one + 1))
        after = after.part(seeds=slice(other, other + 1))
    faces = pd.concat([before.faces, after.faces]).drop_duplicates("file")
    found: Values = {}
    for task in after.right:
        ours, reference = (_values(side, task, faces["file"]) for side in (after, before))
        if same_models:
            ours, reference = ours - reference, np.zeros_like(ours)
        result = difference_of(ours, reference, faces["cluster"].to_numpy())
        ends = {"mean": result.accuracy, "low": result.low, "high": result.high}
        found[task] = ends | {"over_seeds": len(after.seeds) > 1}
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


def leak_page(study: Values) -> StudyPage:
    """Write the study as sentences and tables."""
    networks = study["networks"]
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
    if any(_of_one_seed(step) for network in networks for step in network["steps"]):
        notes.append(
            "Changes with one seed on a side are of these trainings alone: their intervals hold "
            "no variance over seeds."
        )
    notes += [note for network in networks for note in network["notes"]]
    if study["missing"]:
        notes.append(f"Not run: {', '.join(study['missing'])}.")
    return StudyPage(
        f"LEAKY · What a leak is worth, {study['dataset']}",
        tuple(sentence for network in networks for sentence in _sentences(network)),
        tuple(table for network in networks for table in _tables(network)),
        tuple(_picture(network) for network in networks),
        tuple(notes),
        study["drawn"],
    )


def _of_one_seed(step: Values) -> bool:
    return any(not change["over_seeds"] for change in step["changes"].values())


def _sentences(network: Values) -> Iterator[Sentence]:
    by_key = {score["key"]: score for score in network["scores"]}
    published, honest, study = by_key[PUBLISHED], by_key.get(HONEST), network["study"]
    said = ", ".join(
        f"{_rates_text(by_key[key])} % on the {by_key[key]['n_test']:,} test faces {words}"
        for key, words in (("seen", "met in training"), ("clean", "never met"))
        if by_key[key]["n_test"]
    )
    printed = ""
    if study:
        printed = f"the study printed {' / '.join(_printed(study))} % for its row {study['row']}; "
    yield (
        f"{network['label']}: {printed}our replay scores LEAKY {_rates_text(published)} % "
        f"({' / '.join(TASK_TITLES[task] for task in published['rates'])}), {said}.",
        (published["experiment"],),
    )
    if honest:
        fall = " / ".join(
            points(honest["rates"][task]["mean"] - published["rates"][task]["mean"])
            for task in honest["rates"]
        )
        yield (
            f"{network['label']}, trained, selected and tested without the leak: "
            f"{_rates_text(honest)} % on {honest['n_test']:,} faces; against the leaky score "
            f"{fall} pp.",
            (published["experiment"], honest["experiment"]),
        )


def _rates_text(score: Values) -> str:
    return " / ".join(f"{100 * rate['mean']:.1f}" for rate in score["rates"].values())


def _printed(study: Values) -> list[str]:
    return [NOTHING if study[task] is None else f"{100 * study[task]:.1f}" for task in TASKS]


def _tables(network: Values) -> Iterator[StudyTable]:
    label, study, scores = network["label"], network["study"], network["scores"]
    titles = tuple(TASK_TITLES[task] for task in TASKS)
    rows = [
        (score["title"], f"{score['n_test']:,}", *(rate_text(score["rates"].get(t)) for t in TASKS))
        for score in scores
    ]
    of = [(score["experiment"],) for score in scores]
    if study:
        rows.insert(0, (_printed_title(study), NOTHING, *_printed(study)))
        of.insert(0, of[0])
    caption = f"LEAKY · {label}: from the leaky score to the honest one"
    heads = ("scored", "n test", *titles)
    yield StudyTable(f"leak-{label}", caption, heads, tuple(rows), tuple(of))
    for kind, caption in (
        ("steps", "what each step changes, and by how much (pp)"),
        ("alone", "one condition by itself, against the replay (pp)"),
    ):
        if steps := network[kind]:
            yield StudyTable(
                f"leak-{label}-{kind}",
                f"LEAKY · {label}: {caption}",
                ("changed", *titles),
                tuple(tuple(_step_cells(step)) for step in steps),
                tuple(step["experiments"] for step in steps),
            )


def _printed_title(study: Values) -> str:
    return f"LEAKY · printed by the study, row {study['row']}"


def _step_cells(step: Values) -> Iterator[str]:
    yield f"LEAKY · {step['title']}{' (one seed each)' if _of_one_seed(step) else ''}"
    for task in TASKS:
        if change := step["changes"].get(task):
            yield change_text(change["mean"], change["low"], change["high"])
        else:
            yield NOTHING if step["changes"] else NOT_RUN


def _picture(network: Values) -> StudyPicture:
    panels, study = [], network["study"]
    for task in TASKS:
        marks = [
            Mark(f"{score['title']}, n {score['n_test']:,}", rate["mean"], rate["low"],
                 rate["high"], leaky=score["leaky"])
            for score in network["scores"]
            if (rate := score["rates"].get(task))
        ]  # fmt: skip
        if study and (printed := study[task]) is not None:
            marks.insert(0, Mark(_printed_title(study), printed, printed, printed, leaky=True))
        if marks:
            panels.append(StudyPanel(task, TASK_TITLES[task], tuple(marks)))
    title = f"LEAKY · From a leaky score to the honest one: {network['label']}"
    caption = "accuracy on test faces, 95 % interval; red diamonds: LEAKY"
    return StudyPicture(network["label"], title, caption, tuple(panels))
