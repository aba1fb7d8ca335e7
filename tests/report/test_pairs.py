"""Experiments that differ in one respect alone: who meets whom, in which order."""

from collections import defaultdict
from dataclasses import replace

import pytest

from benchmark import registry
from benchmark.reporting.comparisons import RESPECT_OF, judged, respect_couples, siblings
from benchmark.reporting.evidence import Evidence


def suite(name: str) -> list:  # type: ignore[type-arg]
    return list(registry.experiments_of(name))


def test_depths_meet_their_shallower_neighbour() -> None:
    (group,) = siblings(suite("depth"), "trainable_stages")
    values = [(group.value_of(one), group.value_of(other)) for one, other in group.couples()]
    assert values == [
        ("frozen", "fire6_9"),
        ("fire6_9", "fire4_5"),
        ("fire4_5", "fire2_3"),
        ("fire2_3", "full"),
    ]


def test_weights_meet_the_random_ones_and_each_other() -> None:
    groups = siblings(suite("controls"), "weights")
    assert groups
    for group in groups:
        ((reference, group),) = group.couples()
        assert (reference.backbone.weights, group.backbone.weights) == ("none", "imagenet")


def test_other_conditions_make_no_siblings() -> None:
    # the swapped control differs in its protocol besides
    names = [
        item.name for group in siblings(suite("controls"), "weights") for item in group.members
    ]
    assert not any("swapped" in name for name in names)


def test_conditioning_meets_none() -> None:
    names = ["mtl-cnn-none-full", "mtl-cnn-none-full-gate", "mtl-cnn-none-full-embedding"]
    (group,) = siblings([registry.experiment(name) for name in names], "conditioning")
    assert {reference.head.conditioning for reference, _ in group.couples()} == {"none"}
    assert len(group.couples()) == 2


def test_without_a_reference_conditionings_do_not_meet() -> None:
    names = ["mtl-cnn-none-full-gate", "mtl-cnn-none-full-embedding"]
    assert siblings([registry.experiment(name) for name in names], "conditioning") == []


def test_a_comparison_has_one_p_and_one_verdict_on_the_page(evidence: Evidence) -> None:
    judged(evidence, "first")
    shown = defaultdict(list)
    for question, found in evidence.found.items():
        for line in found.lines:
            pair = frozenset((line.group.identities, line.reference.identities))
            shown[pair, line.task].append((question, line.family, line.p_holm))
    repeated = [lines for lines in shown.values() if len(lines) > 1]
    assert repeated
    for lines in shown.values():
        assert len({(family, p_holm) for _, family, p_holm in lines}) == 1
    families = {family for lines in shown.values() for _, family, _ in lines}
    assert set(RESPECT_OF) | {"mtl_stl", "compare_with", "first"} >= families
    assert {"mtl_stl", "compare_with", "first"} <= families


def test_report_and_leaderboard_give_a_pair_the_same_p_and_verdict(evidence: Evidence) -> None:
    judged(evidence, "first")
    told = {
        (line.group.label, line.reference.label, line.task): (line.family, line.p_holm)
        for found in evidence.found.values()
        for line in found.lines
    }
    networks = {network.row.name: network.row for network in evidence.networks}
    both = [
        (told[key], (outcome.judged.family, outcome.judged.p_holm))
        for row in networks.values()
        for outcome in row.comparisons
        if outcome.judged and (key := (row.name, outcome.other, outcome.task)) in told
    ]
    assert len(both) > 10
    for (family, p_holm), (its_family, its_p) in both:
        assert family == its_family
        assert p_holm == pytest.approx(its_p)


def test_folds_are_not_among_what_the_page_compares(evidence: Evidence) -> None:
    depths = [item for item in evidence.experiments if item.name.startswith("mtl-squeezenet")]
    folded = replace(
        evidence, experiments=(*evidence.experiments, *(item.in_fold(0) for item in depths))
    )
    assert respect_couples(folded, "trainable_stages") == respect_couples(
        evidence, "trainable_stages"
    )
    assert any("squeezenet" in group for _, _, group in respect_couples(folded, "trainable_stages"))
