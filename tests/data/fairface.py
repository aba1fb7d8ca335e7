"""Drawn faces laid out as FairFace is: folders train and val, a table of labels for each."""

import csv
from pathlib import Path
from typing import Final

from PIL import Image

from benchmark.data.drawn import draw_faces

AGES: Final = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
RACES: Final = (
    ("White",), ("Black",), ("East Asian", "Southeast Asian"), ("Indian",),
    ("Middle Eastern", "Latino_Hispanic"),
)  # fmt: skip


def age_range(age: int) -> str:
    """Write an age as FairFace does."""
    for text in AGES[:-1]:
        low, high = map(int, text.split("-"))
        if low <= age <= high:
            return text
    return AGES[-1]


def fairface_of(folder: Path, n_faces: int, seed: int = 9, image_px: int = 32) -> Path:
    """Write `n_faces` drawn faces as FairFace's layout has them; every ninth is in val."""
    drawn = draw_faces(n_faces, seed=seed, image_px=image_px)
    rows: dict[str, list[list[str]]] = {"train": [], "val": []}
    for i, image in enumerate(drawn.images):
        labels, part = drawn.labels.iloc[i], "train" if i % 9 else "val"
        file = f"{part}/{len(rows[part]) + 1}.jpg"
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / file, quality=95)
        words = RACES[labels["race"]]
        gender = ("Male", "Female")[labels["gender"]]
        rows[part].append([file, age_range(labels["age"]), gender, words[i % len(words)], "True"])
    for part, lines in rows.items():
        with (folder / f"fairface_label_{part}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "age", "gender", "race", "service_test"])
            writer.writerows(lines)
    return folder
