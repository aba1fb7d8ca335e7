"""Experiments that differ in one respect alone: which are compared, in which order."""

from collections import defaultdict
from dataclasses import replace

import pytest

from benchmark import registry
from benchmark.reporting.evidence import Evidence
from benchmark.reporting.pair_questions import FIELD_OF, judged, sibling_pairs, siblings


def test_depths_are_compared_with_their_shallower_neighbour() -> None:
    (group,) = siblings(registry.experiments_of("depth"), "depth")
    values = [(group.value_of(one), group.value_of(other)) for one, other in group.pairs()]
    assert values == [
        ("frozen", "fire6_9"),
        ("fire6_9", "fire4_5"),
        ("fire4_5", "fire2_3"),
        ("fire2_3", "full"),
    ]


def test_weights_are_compared_where_nothing_else_differs() -> None:
    groups = siblings(registry.experiments_of("controls"), "weights")
    assert groups
    for group in groups:
        ((reference, other),) = group.pairs()
        assert (reference.backbone.weights, other.backbone.weights) == ("none", "imagenet")
        # The swapped control differs in its protocol besides.
        assert not any("swapped" in item.name for item in group.members)


def test_conditionings_are_compared_with_none_if_there_is_one() -> None:
    names = ["mtl-cnn-none-full", "mtl-cnn-none-full-gate", "mtl-cnn-none-full-embedding"]
    members = [registry.experiment(name) for name in names]
    (group,) = siblings(members, "conditioning")
    assert [reference.name for reference, _ in group.pairs()] == names[:1] * 2
    assert siblings(members[1:], "conditioning") == []


def test_a_comparison_has_one_p_and_one_verdict_on_the_page(evidence: Evidence) -> None:
    judged(evidence, "first")
    shown = defaultdict(list)
    for found in evidence.found.values():
        for line in found.lines:
            pair = frozenset((line.group.identities, line.reference.identities))
            shown[pair, line.task].append((line.family, line.p_holm))
    assert any(len(lines) > 1 for lines in shown.values())
    assert all(len(set(lines)) == 1 for lines in shown.values())
    families = {family for lines in shown.values() for family, _ in lines}
    assert families <= set(FIELD_OF) | {"mtl_stl", "compare_with", "first"}
    assert families >= {"mtl_stl", "compare_with", "first"}


def test_report_and_leaderboard_give_a_pair_the_same_p_and_verdict(evidence: Evidence) -> None:
    judged(evidence, "first")
    told = {
        (line.group.label, line.reference.label, line.task): (line.family, line.p_holm)
        for found in evidence.found.values()
        for line in found.lines
    }
    both = [
        (told[key], (outcome.judged.family, outcome.judged.p_holm))
        for name, network in evidence.networks.items()
        for outcome in network.row.comparisons
        if outcome.judged and (key := (name, outcome.other, outcome.task)) in told
    ]
    assert len(both) > 10
    for (family, p_holm), (its_family, its_p) in both:
        assert family == its_family
        assert p_holm == pytest.approx(its_p)


def test_folds_are_not_among_what_the_report_compares(evidence: Evidence) -> None:
    depths = [item for item in evidence.experiments if item.name.startswith("mtl-squeezenet")]
    folds = tuple(item.in_fold(0) for item in depths)
    folded = replace(evidence, experiments=(*evidence.experiments, *folds))
    pairs = sibling_pairs(evidence, "depth")
    assert sibling_pairs(folded, "depth") == pairs
    assert any("squeezenet" in other for _, _, other in pairs)
