"""Drawn faces laid out as FairFace is: folders train and val, a table of labels for each."""

from pathlib import Path
from typing import Final

import pandas as pd
from PIL import Image

from benchmark.data.drawn import draw_faces

AGES: Final = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
FIRST_YEARS: Final = (0, 3, 10, 20, 30, 40, 50, 60, 70)
RACES: Final = (
    ("White",), ("Black",), ("East Asian", "Southeast Asian"), ("Indian",),
    ("Middle Eastern", "Latino_Hispanic"),
)  # fmt: skip


def fairface_of(folder: Path, n_faces: int, seed: int = 9, image_px: int = 32) -> Path:
    """Write `n_faces` drawn faces as FairFace's layout has them; every ninth is in val."""
    drawn = draw_faces(n_faces, seed=seed, image_px=image_px)
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "val": []}
    for i, image in enumerate(drawn.images):
        labels, part = drawn.labels.iloc[i], "train" if i % 9 else "val"
        file = f"{part}/{len(rows[part]) + 1}.jpg"
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / file, quality=95)
        age, words = AGES[sum(labels["age"] >= y for y in FIRST_YEARS) - 1], RACES[labels["race"]]
        gender = ("Male", "Female")[labels["gender"]]
        rows[part].append((file, age, gender, words[i % len(words)], "True"))
    for part, lines in rows.items():
        table = pd.DataFrame(lines, columns=["file", "age", "gender", "race", "service_test"])
        table.to_csv(folder / f"fairface_label_{part}.csv", index=False)
    return folder
