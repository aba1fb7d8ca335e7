"""Accuracy by how much of the trunk is trained: a line for each trunk, a panel for each task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from benchmark.architectures import architecture_named
from benchmark.experiment import Experiment
from benchmark.report import plots
from benchmark.report.evidence import Evidence, Network
from benchmark.report.pairs import Siblings, siblings
from benchmark.report.plots import Picture, Series
from benchmark.tasks import TASK_TITLES, TASKS, TaskName


@dataclass(frozen=True)
class _Depths:
    """Trunks of which two depths or more are finished."""

    groups: tuple[Siblings, ...]
    networks: Mapping[str, Network]

    @property
    def longest(self) -> Siblings:
        """The group with most depths."""
        return max(self.groups, key=lambda group: len(group.members))

    @property
    def alike(self) -> bool:
        """Whether all trunks have the longest one's stages, so that one axis can name them."""
        return all(set(_names(group)) <= set(_names(self.longest)) for group in self.groups)

    @property
    def ticks(self) -> dict[float, str]:
        """What stands at the places of the axis."""
        if self.alike:
            return {float(place): name for place, name in enumerate(_names(self.longest))}
        return {0.0: "frozen", 0.5: "half", 1.0: "full"}

    def place(self, item: Experiment) -> float:
        """Place a depth: by its rank where stages are the same, else by the share trained."""
        if self.alike:
            return float(_names(self.longest).index(item.backbone.depth_name))
        n_stages = len(architecture_named(item.backbone.architecture).stages)
        return len(item.backbone.trained_stages) / n_stages


def _names(group: Siblings) -> list[str]:
    return [member.backbone.depth_name for member in group.members]


def depth_pictures(evidence: Evidence) -> Iterator[Picture]:
    """Draw accuracy by depth; nothing where no trunk has two depths finished."""
    networks = {network.row.name: network for network in evidence.networks if network.tested}
    honest = [item for item in evidence.experiments if not item.protocol.leaky]
    finished = (
        Siblings(group.respect, tuple(m for m in group.members if m.name in networks))
        for group in siblings(honest, "trainable_stages")
    )
    groups = tuple(group for group in finished if len(group.members) > 1)
    if not groups:
        return
    depths = _Depths(groups, networks)
    legend = tuple(
        (plots.swatch(plots.style_of(style), plots.shape_of(style)), group.label)
        for style, group in enumerate(groups)
    )
    yield Picture(
        "Accuracy by depth",
        "Test accuracy with its 95 % interval, from a frozen trunk to one that is trained whole.",
        tuple(_panel(depths, task) for task in TASKS if _series(depths, task)),
        legend,
    )


def _panel(depths: _Depths, task: TaskName) -> Markup:
    return plots.series_panel(
        TASK_TITLES[task].capitalize(),
        _series(depths, task),
        depths.ticks,
        x_title="shallowest trained stage" if depths.alike else "share of stages trained",
        css=task,
    )


def _series(depths: _Depths, task: TaskName) -> Sequence[Series]:
    found = []
    for style, group in enumerate(depths.groups):
        scored = [
            (depths.place(item), depths.networks[item.name].row.scores[task])
            for item in group.members
            if task in depths.networks[item.name].row.scores
        ]
        if scored:
            found.append(
                Series(
                    group.label,
                    tuple(place for place, _ in scored),
                    tuple(score.accuracy for _, score in scored),
                    tuple(score.low for _, score in scored),
                    tuple(score.high for _, score in scored),
                    style=style,
                )
            )
    return found
