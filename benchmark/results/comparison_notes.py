"""What stands beneath a comparison's tables: what is missing from them, and how to read them."""

from collections.abc import Iterator, Sequence

from benchmark.results.arms import Arm
from benchmark.results.meetings import NOT_REGISTERED, Gap
from benchmark.results.verdicts import Line, joined
from benchmark.tasks import TASK_TITLES


def gap_sentences(gaps: Sequence[Gap]) -> Iterator[str]:
    """Say what was not compared and why; networks that lack the same counterparts together."""
    lacking: dict[str, dict[str, list[Gap]]] = {}
    for gap in gaps:
        if gap.task is None:
            yield f"{gap.arm} against {gap.reference}: not compared, {gap.why}."
            continue
        named = "" if gap.why == NOT_REGISTERED else f"{gap.reference}: "
        lacking.setdefault(gap.arm, {}).setdefault(f"{named}{gap.why}", []).append(gap)
    networks: dict[str, list[str]] = {}
    for network, reasons in lacking.items():
        parts = [
            f"{joined(TASK_TITLES[gap.task] for gap in ours if gap.task)} ({why})"
            for why, ours in reasons.items()
        ]
        networks.setdefault(", ".join(parts), []).append(network)
    for missing, names in networks.items():
        yield f"Single-task counterparts missing of {joined(names)}: {missing}."


def reading_notes(lines: Sequence[Line], arms: Sequence[Arm]) -> Iterator[str]:
    """Say how the numbers of these very tables are to be read."""
    yield (
        "A difference is the arm minus its reference on the same test faces, in percentage points "
        "(pp), with its 95 % interval. Intervals are not widened for the number of comparisons; "
        "p-values are. Macro-F1 has an interval of the same kind and no test."
    )
    if any(not line.significant for line in lines):
        yield (
            "No significant difference does not mean equal. The minimum detectable difference is "
            "the smallest true one that such a comparison finds in 80 % of cases, at the level "
            "that Holm leaves."
        )
    if any(not line.of_trainings_alone for line in lines):
        yield (
            "Run groups are compared as samples of trainings and of test faces: test and interval "
            "hold the variance of both (docs/METHODS.md)."
        )
    yield from _single_run_notes([line for line in lines if line.of_trainings_alone])
    yield from _arm_notes(arms)


def _single_run_notes(lines: Sequence[Line]) -> Iterator[str]:
    if not lines:
        return
    yield (
        "One seed permits no claim about an experiment: where an arm has one, a single run of each "
        "side is compared, of the same seed where both have it, never the best."
    )
    sharing = max(line.difference.n_faces - line.difference.n_clusters for line in lines)
    if sharing:
        these = f"{sharing} test face{' is a' if sharing == 1 else 's are'} near-duplicate"
        yield (
            f"{these}{' of another' if sharing == 1 else 's of others'} there; McNemar's test "
            "counts every face as independent, and its p is a little too small."
        )


def _arm_notes(arms: Sequence[Arm]) -> Iterator[str]:
    """Say what is particular about the arms themselves."""
    for arm in arms:
        leak = ("LEAKY: test faces were seen in training",) if arm.leaky else ()
        for remark in (*leak, *arm.remarks):
            yield f"{arm.label}: {remark}."
    versions = {str(arm.runs[0].about.get("trainer_version")) for arm in arms}
    if len(versions) > 1:
        yield f"The arms were trained by trainer versions {joined(sorted(versions))}."
