"""A model card: what a trained run is, how well it reads faces, for whom it fails, and its limits.

After M. Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), from the run's stored files
alone. How its text is written and turned into a page is for benchmark.results.card_text.
"""

from dataclasses import dataclass
from typing import Final

from benchmark.errors import RunError
from benchmark.results.card_numbers import (
    age_lines,
    calibration_lines,
    result_lines,
    subgroup_lines,
    tasks_of,
)
from benchmark.results.card_text import NOTHING, code, plain, table
from benchmark.results.limits import LIMITS, LIMITS_DRAWN
from benchmark.results.record import RunRecord
from benchmark.results.red_flags import UTKFACE_NAME, flag_state, warning
from benchmark.tasks import TASK_TITLES

CARD_FILE: Final = "card.md"
INTENDED: Final = (
    "Comparing networks, starting weights and depths of training under one leak-free protocol.",
    "Studying for whom such networks fail, and checking the published claims about them.",
)
NOT_INTENDED: Final = (
    "Deciding anything about a person: access, hiring, credit, insurance, health, policing, "
    "borders, advertising. It guesses what an annotator would perceive, and is wrong more often "
    "for some people than for others.",
    "Saying who somebody is, or what their gender, age or origin is: these are not in a picture.",
    "Watching, counting or sorting people who have not agreed to it.",
    "Pictures unlike those it was tested on: other crops, cameras or light.",
)


@dataclass(frozen=True)
class Origin:
    """What is known of the weights that a run started from."""

    licence: str = ""
    trained_on: str = ""


def model_card(record: RunRecord, origin: Origin | None = None) -> str:
    """Write the card of a finished run as Markdown; raises RunError where it is not finished.

    What an older facebench did not compute is left out, with the command that computes it.
    """
    if record.state != "done":
        raise RunError(
            f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed}) is "
            f"{record.state}",
            allowed="a finished run",
            source=str(record.folder),
            fix=f"`facebench run {record.experiment_name} --seeds {record.seed}` goes on with it",
        )
    try:
        parts = (
            _heading(record),
            _training(record),
            result_lines(record),
            subgroup_lines(record),
            age_lines(record),
            calibration_lines(record),
            _uses(record),
            _limits(record),
            _licences(record, origin or Origin()),
            _provenance(record),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the files of run {record.identity[:12]} hold too little for a card "
            f"({type(error).__name__}: {error})",
            allowed="what facebench writes",
            source=str(record.folder),
        ) from error
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _heading(record: RunRecord) -> list[str]:
    about = record.about
    definition, backbone = about["experiment"], about["experiment"]["backbone"]
    warnings: list[str] = []
    if about["dataset"]["drawn"]:
        warnings += LIMITS_DRAWN
    if about["leaky"]:
        warnings.append(
            "LEAKY: test faces were seen in training. No number here says how well it reads faces."
        )
    if about["ad_hoc"]:
        warnings.append("AD HOC: changed on the command line, and kept off leaderboards.")
    flagged = warning({record.identity[:12]: flag_state(record)}, record.identity[:12])
    warnings += [flagged] if flagged else []
    title = f"# Model card: {plain(definition['name'])}, seed {int(about['seed'])}"
    stages = backbone["trainable_stages"]
    depth = {"all": "trained as a whole", 0: "frozen"}.get(
        stages, f"frozen but for its {stages} deepest stage(s)"
    )
    *firsts, last = (TASK_TITLES[task] for task in tasks_of(record))
    reads = f"{', '.join(firsts)} and {last}" if firsts else last
    start = "random" if backbone["weights"] == "none" else code(backbone["weights"])
    parameters = about["parameters"]
    return [
        title,
        "",
        *(line for text in warnings for line in (f"> **{plain(text)}**", "")),
        f"{plain(definition['asks'])}",
        "",
        f"A {code(backbone['architecture'])} trunk from {start} weights, "
        f"{depth}, that reads {reads} from a face of {int(backbone['input_px'])} px: "
        f"{parameters['total']:,} parameters, {parameters['trainable']:,} of them trained.",
        "",
    ]


def _training(record: RunRecord) -> list[str]:
    about = record.about
    dataset, counts = about["dataset"], about["dataset"]["counts"]
    faces = "drawn faces" if dataset["drawn"] else "photographed faces"
    subset = about["experiment"].get("subset")
    about_whom = "everyone in it"
    if subset:
        people = ", ".join(str(subset[key]) for key in ("gender", "race") if subset.get(key))
        about_whom = f"{plain(people)}; trained on: {plain(subset['training'])}"
    done, recipe = record.done, about["experiment"]["recipe"]
    rows = [
        ("data set", f"{code(dataset['name'])}, {faces}"),
        ("people", about_whom),
        ("training faces", f"{counts['train']:,}"),
        ("selected on", f"{counts['val']:,} validation faces"),
        ("split", f"{plain(dataset['split_version'])}, digest {code(dataset['split_digest'])}"),
        ("protocol", plain(about["protocol_name"])),
        ("epochs", f"{done['epochs']}, the weights of epoch {done['selected_epoch']} kept"),
        ("learning rate, batch", f"{recipe['learning_rate']:g}, {recipe['batch_size']}"),
        ("training time", f"{done['seconds']:,.0f} s on {plain(about['device'])}"),
    ]
    return ["## What it was trained on", "", *table(("", ""), rows, n_left=2)]


def _uses(record: RunRecord) -> list[str]:
    return [
        *("## Intended use", "", *(f"- {text}" for text in INTENDED), ""),
        *("## Not intended", "", *(f"- {text}" for text in NOT_INTENDED), ""),
    ]


def _limits(record: RunRecord) -> list[str]:
    drawn = bool(record.about["dataset"]["drawn"])
    return [
        "## Limits",
        "",
        *(f"- {text}" for text in (LIMITS_DRAWN if drawn else ()) + LIMITS),
        "",
    ]


def _licences(record: RunRecord, origin: Origin) -> list[str]:
    about = record.about
    dataset, weights = about["dataset"], about["weights"]
    if dataset["drawn"]:
        data = "drawn by facebench, under its licence (Apache-2.0)"
    elif UTKFACE_NAME in str(dataset["name"]).lower():
        data = "UTKFace, for non-commercial research only; the pictures belong to their owners"
    else:
        data = "not known to facebench: ask whoever gave you the pictures"
    start = "random values: no licence but that of the code"
    if weights["source"] != "none":
        start = f"{code(weights.get('origin') or weights['source'])}, "
        start += f"licence: {plain(origin.licence or 'not known to facebench')}"
        start += f"; trained on {plain(origin.trained_on)}" if origin.trained_on else ""
    return [
        *("## Licences", ""),
        f"- Data: {data}.",
        f"- Weights it started from: {start}.",
        "- Code: Apache-2.0. What may be done with the trained weights follows from the stricter "
        "of data and starting weights.",
        "",
    ]


def _provenance(record: RunRecord) -> list[str]:
    about, done = record.about, record.done
    dataset, weights = about["dataset"], about["weights"]
    versions = ", ".join(f"{plain(k)} {plain(v)}" for k, v in about.get("versions", {}).items())
    rows = [
        ("run", code(record.identity)),
        ("seed", str(record.seed)),
        ("finished", plain(done.get("finished", NOTHING))),
        ("commit", code(about["commit"])),
        ("device", f"{plain(about['device'])}, {plain(about['precision'])}"),
        ("versions", versions or NOTHING),
        ("pixel digest", code(dataset["pixel_digest"])),
        ("split digest", code(dataset["split_digest"])),
        ("weights digest", code(weights["sha256"] or "")),
        ("predictions digest", code(record.predictions_sha256)),
    ]
    name, kept = record.experiment_name, (record.folder / "model.safetensors").is_file()
    again = f"facebench run {name} --seeds {record.seed} --dataset {dataset['name']}"
    lines = ["## How it was made", "", *table(("", ""), rows, n_left=2), "```", again, "```", ""]
    if kept:
        lines += [
            "Its network, tensors without code, is `model.safetensors` in the run's folder:",
            *("", "```python", "from benchmark.trained import load_trained", ""),
            'model = load_trained("model.safetensors")',
            "model.predict(faces)  # uint8 (n, px, px, 3), RGB -> probabilities per task",
            *("```", ""),
        ]
    return lines
