"""The two variations that every architecture has: heads that see gender, and one task by itself.

Both keep everything else, the recipe included, so that a comparison asks one thing.
"""

from collections.abc import Iterator, Mapping

from benchmark.experiment import TASKS, Experiment, StudyRow

QUESTIONS = {
    "embedding": "Do age group and race gain from a look at the features of gender?",
    "gate": "Do age group and race gain when a gate scales what they see of gender?",
    "attention": "Do age group and race gain when attention weighs what they see of gender?",
}


def seeing_gender(
    plain: Experiment, studies: Mapping[str, StudyRow | None]
) -> Iterator[Experiment]:
    """Vary how the heads of `plain` see gender: each conditioning in `studies`, with its row."""
    variant = plain.name.removeprefix(plain.stem)
    for conditioning, study in studies.items():
        yield plain.varied(
            name=f"{plain.stem}-{conditioning}{variant}",
            asks=QUESTIONS[conditioning],
            compare_with=plain.name,
            study=study,
            **{"head.conditioning": conditioning},
        )


def alone(mtl: Experiment, studies: Mapping[str, StudyRow] | None = None) -> Iterator[Experiment]:
    """Vary the multi-task `mtl` into its three single-task counterparts; `studies` by task."""
    backbone = mtl.backbone
    start = "from nothing" if backbone.weights == "none" else backbone.weights
    network = f"{backbone.architecture} ({start}, {backbone.depth_name})"
    for task in TASKS:
        yield mtl.varied(
            name=mtl.counterpart_name(task),
            asks=f"Is {task.replace('_', ' ')} predicted better where {network} learns it alone?",
            compare_with=mtl.name,
            study=(studies or {}).get(task),
            **{"head.tasks": (task,)},
        )
