"""The leak taken apart: from a leaky score to the honest one of the same network.

Everything is computed from stored predictions and from `exposure.csv`, which says how training met
each test face. A leaky run is scored on its own test part, as the study scored itself, and on the
leak-free test faces, on which every further model of the chain is scored too; so a step that
changes the models is a paired difference on common faces. Each task is scored on the faces that are
labelled for it. Every row is LEAKY except `never met` and `honest`.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison import wording as words
from benchmark.comparison.library import Library, RunGroup
from benchmark.comparison.statistics import difference_of
from benchmark.errors import RunError
from benchmark.evaluation.predictions import RunPredictions, predictions_on
from benchmark.experiment.definition import Experiment
from benchmark.tasks import MISSING, TASK_TITLES, TASKS, TaskName

LEAK_SUITES: Final = ("headline", "leak", "leak_vgg16")
"""What `facebench leak` and the report read; in the order of their networks."""
PUBLISHED: Final = "published"
HONEST: Final = "honest"
EXPOSURES: Final = ("seen", "related", "clean")
SCORES: Final = {
    PUBLISHED: ("", "our replay, on its own test faces"),
    "seen": ("", "of these, met in training"),
    "related": ("", "of these, met in validation or as another picture of the cluster"),
    "clean": ("", "of these, never met"),
    "common": ("test population", "our replay, on the leak-free test faces"),
    "duplicates": ("training set", "training set without the test faces' pictures"),
    "batches": ("batching", "… and batches drawn anew each epoch"),
    "scaling": ("input scaling", "… and input scaled as the weights demand"),
    HONEST: ("selection", "honest: … and selected on faces not trained on"),
}
"""From leaky to honest, what a step to the score changes, and its title. The replay by how it met
the faces, then on others' faces; then the models that the endings of names mean."""
ALONE: Final = {
    "split": "training set: no test file",
    "only_duplicates": "training set and test population: one face per cluster",
    "only_batches": "batching: drawn anew each epoch",
    "only_scaling": "input scaling: as the weights demand",
    "only_selection": "selection: on faces not trained on",
}
"""One condition of the protocol changed by itself; by ending."""
NOT_RUN: Final = "not run"
PRINTED: Final = "LEAKY · printed by the study, row {row}"

Values = dict[str, Any]
"""Plain values under the names that `--json` has."""


def leak_study(library: Library, experiments: Sequence[Experiment], dataset: str) -> Values:
    """Read the finished runs of `experiments` on `dataset` and take the leak apart.

    Gives dataset, drawn, missing (what was not run) and networks: of each its label, scores from
    leaky to honest, steps between them, conditions changed `alone`, the study's row where
    architecture, weights and faces are its own, and notes. Rates and changes are fractions, with
    the ends of their 95 % intervals; a step that was not run has no changes. A row that is
    registered under no ending is the honest one of those named after it. Raises RunError where no
    network was run under the protocol `published`, or the files of a run do not fit together.
    """
    groups: dict[str, dict[str, RunGroup]] = defaultdict(dict)
    absent: dict[str, list[str]] = defaultdict(list)
    firsts: dict[str, Experiment] = {}
    names = {item.name for item in experiments}
    for item in experiments:
        label, _, ending = item.name.rpartition("-")
        if f"{item.name}-{PUBLISHED}" in names:
            label, ending = item.name, HONEST
        firsts.setdefault(label, item)
        found = library.run_group(item.name, dataset)
        if found.runs:
            groups[label][ending] = found
        else:
            absent[label].append(item.name + f" ({found.why})" * (found.why != NOT_RUN))
    networks = [
        _network(label, ours, firsts[label]) for label, ours in groups.items() if PUBLISHED in ours
    ]
    if not networks:
        nothing = f"no network was run under the protocol `published` on {dataset}"
        raise RunError(nothing, fix="`facebench run --suite leak --seeds 0,1,2` makes such runs")
    missing = [
        text for label, texts in absent.items() for text in (texts if label in groups else [label])
    ]
    drawn = any(group.setting.drawn for ours in groups.values() for group in ours.values())
    return {"dataset": dataset, "drawn": drawn, "networks": networks, "missing": missing}


def _network(label: str, groups: Mapping[str, RunGroup], first: Experiment) -> Values:
    sides = {ending: _side(group.predictions, group.seeds) for ending, group in groups.items()}
    replay, published = groups[PUBLISHED], sides[PUBLISHED]
    chain = [key for key in SCORES if key in sides and key != PUBLISHED]
    if any(not sides[key].index.equals(sides[chain[0]].index) for key in chain):
        raise RunError(
            f"the models of {label} were tested on different faces",
            allowed="the test faces of one leak-free split",
            fix="Run them again on the data set as it is prepared now",
        )
    met = _exposure(replay)
    models = {PUBLISHED: published} | {key: published[met == key] for key in EXPOSURES}
    if chain:  # After the replay, the same models on the faces of the others.
        models["common"] = _on_faces(replay, groups[chain[0]].predictions.faces)
    models |= {key: sides[key] for key in chain}
    titles = {key: title for key, (_, title) in SCORES.items()}
    if chain == [HONEST]:
        titles[HONEST] = "honest: trained, selected and tested without the leak"
    leaky = {key: groups.get(key, replay).leaky and key != "clean" for key in models}
    about = replay.runs[0].record.about["dataset"]
    of_the_study = first.study and not about["drawn"] and about.get("labels_digest") is None
    return {
        "label": label,
        "scores": [
            {"key": key, "title": "LEAKY · " * leaky[key] + titles[key], "leaky": leaky[key],
             "experiment": groups.get(key, replay).label, "n_test": len(side),
             "rates": _rates(side)}
            for key, side in models.items()
        ],
        "steps": list(_steps(groups, models)),
        "alone": [
            {"key": ending, "title": title, "experiments": (replay.label, groups[ending].label),
             "changes": _changes(published, sides[ending])}
            for ending, title in ALONE.items() if ending in sides
        ],
        "study": dataclasses.asdict(first.study) if first.study and of_the_study else None,
        "notes": list(_training_notes(label, groups, first)),
    }  # fmt: skip


def _side(read: RunPredictions, seeds: Sequence[int]) -> pd.DataFrame:
    """Tell of each face (index file, cluster), by task and seed, whether it is right: 1, 0 or NaN
    where it has no label of the task."""
    faces = pd.MultiIndex.from_frame(read.faces[["file", "cluster"]])
    right: dict[str, pd.DataFrame] = {}
    for task in read.predicted:
        known = (read.faces[task] != MISSING).to_numpy()[:, None]
        right[task] = pd.DataFrame(np.where(known, read.right(task).T, np.nan), faces, list(seeds))
    return pd.concat(right, axis=1)


def _on_faces(group: RunGroup, faces: pd.DataFrame) -> pd.DataFrame:
    """Score models on other test faces than their own; RunError where a run lacks them."""
    tables = [predictions_on(run.record, pd.Index(faces["file"])) for run in group.runs]
    predicted = {it: np.stack([table[f"{it}_pred"] for table in tables]) for it in group.tasks}
    return _side(RunPredictions(faces, predicted), group.seeds)


def _rates(side: pd.DataFrame) -> dict[TaskName, Values | None]:
    known = {task: side[task].dropna() for task in TASKS if task in side}
    return {
        task: words.rate_of(right.to_numpy().T, right.index.get_level_values("cluster").to_numpy())
        for task, right in known.items()
    }


def _exposure(group: RunGroup) -> npt.NDArray[np.object_]:
    """Read how each test face was met, in the order of the predictions; equal for all seeds."""
    run, files = group.runs[0], group.predictions.faces["file"]
    met = run.record.exposure().reindex(columns=["file", "exposure"]).set_index("file")["exposure"]
    if set(met.index) != set(files) or not set(met) <= set(EXPOSURES):
        raise RunError(
            f"exposure.csv of run {run.short_identity} is not about its test faces",
            allowed=f"each test face once, as {', '.join(EXPOSURES)}",
            source=str(run.record.exposure_path),
        )
    return met[files].to_numpy()


def _steps(groups: Mapping[str, RunGroup], models: Mapping[str, pd.DataFrame]) -> Iterator[Values]:
    """Give all steps in their order; what was not run is changed by the next that was."""
    before, name, together = models[PUBLISHED], groups[PUBLISHED].label, []
    for key, changed in ((key, changed) for key, (changed, _) in SCORES.items() if changed):
        together.append(changed)
        step: Values = {"key": key, "title": changed, "experiments": (), "changes": {}}
        if key in models:
            step["title"] = ", ".join(together) + ", together" * (len(together) > 1)
            step["experiments"] = (name, groups[key].label) if key in groups else (name,)
            step["changes"] = _changes(before, models[key], same_models=key == "common")
            before, name, together = models[key], step["experiments"][-1], []
        yield step


def _changes(before: pd.DataFrame, after: pd.DataFrame, *, same_models: bool = False) -> Values:
    """Compare two sides, on the same faces or on others; of the same models, seed by seed.

    Where one side has one seed and the other several, one seed of each is compared. Each seed's
    accuracy is spread over all faces, so that its mean stays: a face that the side was tested on
    has its own share of the deviation from the mean, all others none. Clusters on both sides then
    count as paired, others as independent.
    """
    found: Values = {}
    for task in after.columns.unique(0):
        one, other = (pd.DataFrame(side[task]).dropna() for side in (before, after))
        if not (over_seeds := min(one.shape[1], other.shape[1]) > 1):
            shared = one.columns.intersection(other.columns)[:1]
            one, other = (it[shared] if len(shared) else it.iloc[:, :1] for it in (one, other))
        faces, values = one.index.union(other.index), []
        for right in (one, other):
            share = (right - right.mean()) * (len(faces) / len(right))
            values.append((share.reindex(faces, fill_value=0.0) + right.mean()).to_numpy().T)
        reference, group = values
        if same_models:
            reference, group = np.zeros_like(group), group - reference
        result = difference_of(group, reference, faces.get_level_values("cluster").to_numpy())
        found[task] = {"mean": result.accuracy, "low": result.low, "high": result.high}
        found[task]["over_seeds"] = over_seeds
    return found


def _training_notes(label: str, groups: Mapping[str, RunGroup], first: Experiment) -> Iterator[str]:
    recipe, until = first.recipe, first.recipe.until_train_accuracy
    if first.study is None:
        yield (
            f"{label}: the protocol alone is the study's (split, batching, input scaling, "
            f"selection). Its recipe is not: schedule {recipe.schedule}, batches of "
            f"{recipe.batch_size}, faces of {first.backbone.input_px} px."
        )
    n_epochs = [len(run.record.history()) for group in groups.values() for run in group.runs]
    span = " to ".join(map(str, sorted({min(n_epochs), max(n_epochs)})))
    if until is None:
        yield f"{label}: trained for {span} epochs."
    else:
        yield (
            f"{label}: each training ended when every task was at {100 * until:.0f} % on its "
            f"training faces in eval mode, at most after {recipe.max_epochs} epochs; after {span} "
            "epochs."
        )


def leak_page(study: Values) -> words.StudyPage:
    networks = study["networks"]
    notes = [
        words.STUDY_NUMBERS,
        "From the replay on the leak-free test faces on, every model is scored on the same faces; "
        "a leaky model has met most of them. Under `one condition by itself` each model has the "
        "test part of its own split.",
        "The steps are cumulative and in one order of many: what a step is worth depends on it. "
        "The last step, selection, also draws the training part by our rule.",
    ]
    if any(_of_one_seed(step) for network in networks for step in network["steps"]):
        notes.append(
            "Changes with one seed on a side are of these training runs only: their intervals hold "
            "no variance over seeds."
        )
    notes += [note for network in networks for note in network["notes"]]
    if study["missing"]:
        notes.append(f"Not run: {', '.join(study['missing'])}.")
    return words.StudyPage(
        f"LEAKY · What a leak is worth, {study['dataset']}",
        tuple(sentence for network in networks for sentence in _sentences(network)),
        tuple(table for network in networks for table in _tables(network)),
        tuple(map(_figure, networks)),
        tuple(notes),
        study,
    )


def _of_one_seed(step: Values) -> bool:
    return any(not change["over_seeds"] for change in step["changes"].values())


def _sentences(network: Values) -> Iterator[str]:
    by_key = {score["key"]: score for score in network["scores"]}
    rates = {
        key: " / ".join(words.percent(rate and rate["mean"]) for rate in score["rates"].values())
        for key, score in by_key.items()
    }
    said = ", ".join(
        f"{rates[key]} % on the {by_key[key]['n_test']:,} test faces {how}"
        for key, how in (("seen", "met in training"), ("clean", "never met"))
        if by_key[key]["n_test"]
    )
    printed, leaky = "", by_key[PUBLISHED]["rates"]
    if study := network["study"]:
        numbers = " / ".join(words.percent(study[task]) for task in TASKS)
        printed = f"the study printed {numbers} % for its row {study['row']}; "
    yield (
        f"{network['label']}: {printed}our replay scores LEAKY {rates[PUBLISHED]} % "
        f"({' / '.join(TASK_TITLES[task] for task in leaky)}), {said}."
    )
    if honest := by_key.get(HONEST):
        falls = (honest["rates"][task]["mean"] - leaky[task]["mean"] for task in honest["rates"])
        yield (
            f"{network['label']}, trained, selected and tested without the leak: "
            f"{rates[HONEST]} % on {honest['n_test']:,} faces; against the leaky score "
            f"{' / '.join(map(words.pp, falls))} pp."
        )


def _tables(network: Values) -> Iterator[words.StudyTable]:
    titles = [TASK_TITLES[task] for task in TASKS]
    rows = [
        (
            score["title"],
            f"{score['n_test']:,}",
            *(words.rate_text(score["rates"].get(task)) for task in TASKS),
        )
        for score in network["scores"]
    ]
    if study := network["study"]:
        printed = (words.percent(study[task]) for task in TASKS)
        rows.insert(0, (PRINTED.format_map(study), words.NOTHING, *printed))
    start = f"LEAKY · {network['label']}: "
    caption = f"{start}from the leaky score to the honest one"
    yield words.StudyTable(caption, ("scored", "n test", *titles), tuple(rows))
    for kind, caption in (
        ("steps", "what each step changes, and by how much (pp)"),
        ("alone", "one condition by itself, against the replay (pp)"),
    ):
        rows = []
        for step in network[kind]:
            one_seed = " (one seed each)" if _of_one_seed(step) else ""
            empty = words.NOTHING if step["changes"] else NOT_RUN
            found = [step["changes"].get(task) for task in TASKS]
            cells = [
                words.change_text(it["mean"], it["low"], it["high"]) if it else empty
                for it in found
            ]
            rows.append((f"LEAKY · {step['title']}{one_seed}", *cells))
        if rows:
            yield words.StudyTable(f"{start}{caption}", ("changed", *titles), tuple(rows))


def _figure(network: Values) -> words.StudyFigure:
    panels, study = [], network["study"] or {}
    for task in TASKS:
        marks = []
        if printed := study.get(task):
            name = PRINTED.format_map(study)
            marks.append(words.Mark(name, printed, printed, printed, leaky=True))
        for score in network["scores"]:
            if rate := score["rates"].get(task):
                label = f"{score['title']}, n {score['n_test']:,}"
                ends = rate["mean"], rate["low"], rate["high"]
                marks.append(words.Mark(label, *ends, leaky=score["leaky"]))
        if marks:
            panels.append(words.StudyPanel(task, TASK_TITLES[task], tuple(marks)))
    title = f"LEAKY · From a leaky score to the honest one: {network['label']}"
    caption = "accuracy on test faces, 95 % interval; red diamonds: LEAKY"
    return words.StudyFigure(network["label"], title, caption, tuple(panels))
