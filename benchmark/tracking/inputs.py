"""The faces that a run trained, selected and tested on: data sets of MLflow, with digests."""

from typing import Any, Final

from benchmark.files import canonical_json

CONTEXTS: Final = {"train": "training", "val": "validation", "test": "test"}


def input_name(about: dict[str, Any], part: str) -> str:
    """Name the faces of one part as MLflow shows them: `utkface-100 train`.

    A fold, a subset and another split than ours say so: other faces need another name.
    """
    dataset, definition = about["dataset"], about["experiment"]
    protocol, subset = definition["protocol"], definition.get("subset") or {}
    words = [str(dataset["name"]), part]
    if about["leaky"]:
        words.append(str(dataset["split_version"]))
    if protocol.get("fold") is not None:
        words.append(f"fold {protocol['fold']}")
    words += [str(subset[key]) for key in ("gender", "race", "training") if subset.get(key)]
    return " · ".join(words)


def dataset_inputs(about: dict[str, Any]) -> list[Any]:
    """Describe each part of the split as an input; `about` is `experiment.json`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = about["dataset"]
    pixels, split = str(dataset["pixel_digest"]), str(dataset["split_digest"])
    source = {
        "made": "drawn by facebench" if dataset["drawn"] else "prepared from local files",
        **{key: dataset[key] for key in ("pixel_digest", "split_digest", "split_version")},
    }
    return [
        DatasetInput(
            Dataset(
                name=input_name(about, part),
                digest=f"{pixels[:8]}-{split[:8]}",
                source_type="facebench",
                source=canonical_json(source),
                profile=canonical_json({"faces": dataset["counts"][part]}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for part, context in CONTEXTS.items()
        if part in dataset["counts"]
    ]
