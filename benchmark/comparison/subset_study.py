"""Specialists against networks trained on all faces: what suites like `subsets` answer.

Everything comes from stored predictions. Of each subset up to three run groups are compared on its
test faces; and the system a user would deploy, a classifier that routes each face to a specialist,
is compared with the single network on all test faces that both were tested on. All comparisons are
one family.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.comparison import wording as words
from benchmark.comparison.library import Library, RunGroup, files_of_several
from benchmark.comparison.pairs import difference_between
from benchmark.comparison.statistics import NOT_SIGNIFICANT, Difference, PairResult, results_of
from benchmark.errors import RunError
from benchmark.evaluation.intervals import Labels
from benchmark.evaluation.predictions import RunPredictions, predictions_on
from benchmark.experiment.definition import Experiment, Subset
from benchmark.tasks import CLASS_NAMES, TaskName

ROUTERS: Final[tuple[TaskName, ...]] = ("gender", "race")
TASK: Final[TaskName] = "age_group"
"""What the networks of the study predict; the question is about age."""
TRAININGS: Final = {
    "subset": "specialist",
    "everyone": "all faces",
    "size_matched": "size-matched",
}

Differences = dict[tuple[str, str], Difference]
"""By the subset or router, and the training or network that it is compared with."""
Values = dict[str, Any]
"""Plain values under the names that `--json` has; `compared` holds PairResult beside them."""


def subset_study(library: Library, experiments: Sequence[Experiment], dataset: str) -> Values:
    """Read the runs of `experiments` on `dataset` and compare their run groups.

    They are compared on the seeds that all of them have. Gives dataset, drawn, subsets (title,
    n_test and groups by training, where they were run), systems (a router before specialists,
    routed against the single network; oracle_accuracy: if every face went to its own specialist),
    missing, and compared: differences, one family of tests, each `of` a subset or router `against`
    a training or the single network. Raises RunError where there is nothing to compare, or where
    runs have other test faces or start from other weights.
    """
    found = {item.name: library.run_group(item.name, dataset) for item in experiments}
    groups = {name: group for name, group in found.items() if group.runs}
    runs = [run for group in groups.values() for run in group.runs]
    for what, count in files_of_several(runs).items():
        if what != "pixels":
            several = f"runs on {dataset} have {count} different {what}"
            fix = "Give the runs of each a runs folder of their own"
            raise RunError(several, allowed=f"one of the {what}", fix=fix)
    members: dict[Subset, dict[str, RunGroup]] = defaultdict(dict)
    for item in experiments:
        if item.subset is not None and item.name in groups:
            members[item.subset.tested][item.subset.training] = groups[item.name]
    differences: Differences = {}
    subsets: list[Values] = []
    for subset, trained in members.items():
        ours = dict(zip(trained, _on_common_seeds([*trained.values()]), strict=True))
        if len(ours) > 1 and all(group.runs for group in ours.values()):
            gender = {"female": "women", "male": "men", None: ""}[subset.gender]
            title = f"{subset.race or ''} {gender}".strip()
            read = {kind: group.predictions.labelled(TASK) for kind, group in ours.items()}
            for kind in ("everyone", "size_matched"):
                if {"subset", kind} <= ours.keys():
                    differences[title, kind] = difference_between(read[kind], read["subset"], TASK)
            n_test = len(next(iter(read.values())).faces)
            results = {kind: _result(group, read[kind]) for kind, group in ours.items()}
            subsets.append({"title": title, "n_test": n_test, "groups": results})
    if not subsets:
        nothing = f"no subset has finished runs of two run groups on {dataset}"
        raise RunError(nothing, fix="`facebench run --suite subsets --seeds 0,1,2` makes them")
    whole = {it.head.tasks: found[it.name] for it in reversed(experiments) if it.subset is None}
    none, systems = RunGroup(""), []
    for router in ROUTERS:
        own = [Subset(**{router: name}) for name in CLASS_NAMES[router]]  # type: ignore[arg-type]
        parts = [members[subset].get("subset", none) for subset in own]
        parts += [whole.get((router,), none), whole.get((TASK,), none)]
        systems.append(_system(router, parts, differences))
    compared = results_of(("subsets", key, it) for key, it in differences.items())
    return {
        "dataset": dataset,
        "drawn": any(run.setting.drawn for run in runs),
        "subsets": subsets,
        "systems": [system for system in systems if system],
        "missing": [name for name in found if name not in groups],
        "compared": {key: compared[key] for key in differences},
    }


def _on_common_seeds(groups: Sequence[RunGroup]) -> list[RunGroup]:
    seeds = set.intersection(*(set(group.seeds) for group in groups))
    return [group.of_seeds(seeds) for group in groups]


def _result(group: RunGroup, read: RunPredictions) -> Values:
    rate = words.rate_of(read.right(TASK), read.faces["cluster"].to_numpy())
    n_train = int(group.runs[0].record.about["dataset"]["counts"]["train"])
    return {"name": group.label, "seeds": group.seeds, "n_train": n_train, "rate": rate}


def _system(router: TaskName, groups: Sequence[RunGroup], found: Differences) -> Values | None:
    """Put a classifier before its specialists; None where not all groups have a seed and a face.

    groups: a specialist per class, the classifier, the single network. A face without a label of
    the router's is not routed: its classifier was not tested on it.
    """
    *specialists, classifier, single = _on_common_seeds(groups)
    if not single.runs:
        return None
    faces = single.predictions.labelled(TASK).faces
    sent = classifier.predictions.labelled(router).faces["file"]
    faces = faces[faces["file"].isin(sent)].reset_index(drop=True)
    if faces.empty:
        return None
    files, label = pd.Index(faces["file"]), faces[router].to_numpy()

    def predicted(group: RunGroup, task: TaskName = TASK) -> Labels:
        return np.array([predictions_on(run.record, files)[f"{task}_pred"] for run in group.runs])

    chosen, experts = predicted(classifier, router), np.array([*map(predicted, specialists)])
    routed, oracle = (
        np.take_along_axis(experts, np.broadcast_to(to, chosen.shape)[None], axis=0)[0]
        for to in (chosen, label)
    )
    alone, system = (RunPredictions(faces, {TASK: it}) for it in (predicted(single), routed))
    found[router, "single"] = difference_between(alone, system, TASK)
    return {
        "router": router,
        "n_test": len(faces),
        "misrouted_fraction": float((chosen != label).mean()),
        "routed": _result(replace(single, label=f"routed by {router}"), system),
        "single": _result(single, alone),
        "oracle_accuracy": float((oracle == faces[TASK].to_numpy()).mean()),
    }


def subset_page(study: Values) -> words.StudyPage:
    missing, compared = study["missing"], study["compared"]
    notes = [
        words.STUDY_NUMBERS,
        "All run groups take the same optimiser steps and are selected on the subset's validation "
        "faces; size-matched is a stratified sample of all faces, as large as the subset.",
        f"p is corrected by Holm's procedure over all {len(compared)} comparisons of the "
        f"page, which are one question; {words.SIGNIFICANT}: significant; mdd: minimum detectable "
        "difference in pp. One seed a side: McNemar's exact test, of these two training runs only.",
    ]
    if missing:
        notes.append(f"Not run: {', '.join(missing)}.")
    plain = [
        {"of": of, "against": by, **asdict(result), "verdict": result.verdict}
        for (of, by), result in compared.items()
    ]
    return words.StudyPage(
        f"Specialists against networks trained on all faces, {study['dataset']}",
        tuple(_sentences(study)),
        tuple(_tables(study)),
        (_figure(study),),
        tuple(notes),
        study | {"compared": plain},
    )


def _sentences(study: Values) -> Iterator[str]:
    """Say for which subsets the specialist is better, worse, or neither; then of each system."""
    for kind, start in (
        ("everyone", "Against the network trained on all faces, on the same subset's faces,"),
        ("size_matched", "Against one trained on a sample of all faces of the subset's size,"),
    ):
        verdicts = {of: item.verdict for (of, by), item in study["compared"].items() if by == kind}
        said = [
            f"is {verdict} for {words.joined(ours)}"
            for verdict in ("better", "worse")
            if (ours := [title for title, found in verdicts.items() if found == verdict])
        ]
        if rest := sum(found == NOT_SIGNIFICANT for found in verdicts.values()):
            said.append(f"shows {NOT_SIGNIFICANT} for {rest} of {len(verdicts)} subsets")
        if said:
            yield f"{start} the specialist {'; it '.join(said)}."
    for system in study["systems"]:
        result = study["compared"][system["router"], "single"]
        routed, single = (system[name]["rate"]["mean"] for name in ("routed", "single"))
        yield (
            f"Routing each face by {system['router']} to its specialist scores "
            f"{100 * routed:.1f} % on all test faces, the single network {100 * single:.1f} %: "
            f"{_difference_cells(result)[0]} pp, {words.verdict_text(result)}. "
            f"{100 * system['misrouted_fraction']:.1f} % of faces went to another specialist than "
            "their label's; with none of them the system would score "
            f"{100 * system['oracle_accuracy']:.1f} %."
        )


def _difference_cells(result: PairResult | None) -> tuple[str, str]:
    """Write a difference with its interval, and its corrected p."""
    if result is None:
        return words.NOTHING, words.NOTHING
    found, mark = result.difference, f"(mdd {words.percent(result.minimum_detectable)})"
    p = f"{words.p_text(result.p_holm)} {words.SIGNIFICANT if result.significant else mark}"
    return words.change_text(found.accuracy, found.low, found.high), p


def _tables(study: Values) -> Iterator[words.StudyTable]:
    compared, rows = study["compared"], []
    for result in study["subsets"]:
        title, groups = result["title"], [result["groups"].get(kind) for kind in TRAININGS]
        rates = (words.rate_text(group and group["rate"]) for group in groups)
        cells = [*_difference_cells(compared.get((title, "everyone")))]
        cells += _difference_cells(compared.get((title, "size_matched")))
        rows.append((f"{title}, n {result['n_test']:,}", *rates, *cells))
    heads = ("subset", *TRAININGS.values(), "− all faces", "p", "− size-matched", "p ")
    caption = "Age-group accuracy by training subset: the specialist's own, all faces, size-matched"
    yield words.StudyTable(caption, heads, tuple(rows))
    rows = []
    for system in study["systems"]:
        rates = (words.rate_text(system[name]["rate"]) for name in ("routed", "single"))
        cells = [*_difference_cells(compared[system["router"], "single"])]
        cells.append(f"{100 * system['misrouted_fraction']:.1f} %")
        rows.append((f"by {system['router']}", f"{system['n_test']:,}", *rates, *cells))
    if rows:
        heads = ("system", "n test", "routed", "single network", "difference", "p", "misrouted")
        caption = "A classifier that sends each face to a specialist, against one network"
        yield words.StudyTable(caption, heads, tuple(rows))


def _figure(study: Values) -> words.StudyFigure:
    titles = {
        "everyone": "against one trained on all faces",
        "size_matched": "against one trained on a sample of all faces of its size",
        "single": "every face, routed by a classifier, against one network",
    }
    sizes = {item["title"]: item["n_test"] for item in study["subsets"]}
    sizes |= {item["router"]: item["n_test"] for item in study["systems"]}
    marks: dict[str, list[words.Mark]] = defaultdict(list)
    for (of, by), result in study["compared"].items():
        label = f"{'routed by ' if by == 'single' else ''}{of}  n {sizes[of]:,}"
        ends = (result.difference.accuracy, result.difference.low, result.difference.high)
        marks[by].append(words.Mark(label, *ends, filled=result.significant))
    return words.StudyFigure(
        "",
        "Does a specialist predict the age group of its subset better?",
        "difference in accuracy on the same test faces, pp, 95 % interval; right of 0: the "
        "specialist (or the routed system) is better; filled: significant, Holm's correction over "
        f"{len(study['compared'])} comparisons",
        tuple(words.StudyPanel(TASK, titles[by], tuple(marks[by])) for by in titles if by in marks),
        of_differences=True,
    )
