"""The same photograph is found re-encoded, scaled, mirrored or framed anew; clusters join it."""

from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter, ImageOps

from benchmark.data import duplicates
from benchmark.data.drawn import draw_faces
from benchmark.data.pictures import SKETCH_SHAPE, THUMBNAIL_SHAPE, grey_of

FACES = [
    # As smooth as photographs are; the emblems' fine patterns are not.
    Image.fromarray(image).filter(ImageFilter.GaussianBlur(4))
    for image in draw_faces(40, seed=3, image_px=200).images
]
TABLE = pd.DataFrame(
    [
        ("a.jpg", "x", 30, 2, 0, 0),
        ("b.jpg", "y", 20, 1, 0, 0),
        ("c.jpg", "x", 31, 2, 0, 0),  # a copy of a: another age, but the same group
        ("d.jpg", "z", 50, 3, 1, 2),
        ("e.jpg", "y", 20, 1, 1, 0),  # the same picture as b, of another gender
        ("f.jpg", "w", 70, 4, 1, 4),
    ],
    columns=["file", "sha256", "age", "age_group", "gender", "race"],
)


def greys_of(shape: tuple[int, int], *images: Image.Image) -> np.ndarray:
    joined = b"".join(grey_of(image, shape) for image in images)
    return np.frombuffer(joined, np.uint8).reshape(-1, *shape)


sketches_of, thumbnails_of = (partial(greys_of, of) for of in (SKETCH_SHAPE, THUMBNAIL_SHAPE))


def rows_of(pairs: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(pairs[["first", "second", "is_mirrored"]].itertuples(index=False, name=None))


def test_all_pairs_are_found_once_that_a_plain_loop_finds() -> None:
    # Both ways near; the upright distance, 0, is the smaller or the first of two equal ones.
    half = np.random.default_rng(0).integers(0, 256, (16, 8), dtype=np.uint8)
    sketch = np.concatenate([half, np.full((16, 1), 128, np.uint8), half[:, ::-1]], axis=1)
    pairs = duplicates.near_pairs(np.stack([sketch, sketch]))
    assert (rows_of(pairs), pairs["distance_bits"].tolist()) == ([(0, 1, False)], [0])
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (10, 16, 17), dtype=np.uint8)
    # 100 faces, near ones and far ones in other blocks.
    sketches = np.concatenate([base] * 10).astype(np.int64)
    sketches = np.clip(sketches + rng.integers(0, 60, sketches.shape), 0, 255).astype(np.uint8)
    bits = (sketches[:, :, 1:] > sketches[:, :, :-1]).reshape(100, 256)
    every = ((i, j, int((bits[i] != bits[j]).sum())) for i, j in combinations(range(100), 2))
    expected = [pair for pair in every if pair[2] <= 40]
    pairs = duplicates.near_pairs(sketches, threshold_bits=40)
    upright = pairs[~pairs["is_mirrored"]][["first", "second", "distance_bits"]]
    assert list(upright.itertuples(index=False, name=None)) == expected
    assert len(expected) > 50


def test_a_copy_in_another_framing_is_found_mirrored_too() -> None:
    cropped = FACES[4].crop((8, 4, 196, 192)).resize((200, 200), Image.Resampling.BICUBIC)
    turned = FACES[4].rotate(5, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    for change in (cropped, turned):
        images = [*FACES, change]
        assert len(duplicates.near_pairs(sketches_of(*images))) == 0  # what this detector is for
        found = duplicates.aligned_pairs(thumbnails_of(*images))
        assert rows_of(found) == [(4, 40, False)]
        assert duplicates.THRESHOLD <= found["correlation"][0] <= 1
        assert rows_of(duplicates.aligned_pairs(thumbnails_of(*images[::-1]))) == [(0, 36, False)]
    found = duplicates.aligned_pairs(thumbnails_of(*FACES, ImageOps.mirror(cropped)))
    assert rows_of(found) == [(4, 40, True)]


def test_different_faces_are_no_pair_and_flat_pictures_or_none_do_no_harm() -> None:
    flat = [Image.new("RGB", (200, 200), colour) for colour in ("white", "black", "grey")]
    assert len(duplicates.aligned_pairs(thumbnails_of(*FACES, *flat))) == 0
    assert len(duplicates.aligned_pairs(np.zeros((1, *THUMBNAIL_SHAPE), np.uint8))) == 0
    for n_faces in (0, 1):
        assert len(duplicates.near_pairs(np.zeros((n_faces, *SKETCH_SHAPE), np.uint8))) == 0


def test_groups_copies_conflicts_and_clusters_numbered_by_their_first_face() -> None:
    same = duplicates.identical_files(TABLE)
    assert same["file"].tolist() == ["a.jpg", "b.jpg", "c.jpg", "e.jpg"]
    assert same["age"].tolist() == [True, False, True, False]
    assert same["gender"].tolist() == [False, True, False, True]
    assert duplicates.count_duplicates(TABLE) == {
        "groups": 2, "files": 4, "groups_in_conflict": 2, "groups_in_conflict_any_task": 1,
        "groups_in_conflict_age": 1, "groups_in_conflict_age_group": 0,
        "groups_in_conflict_gender": 1, "groups_in_conflict_race": 0,
    }  # fmt: skip
    # Groups {0, 2} and {1, 4}, and the near pair 2-3: {0, 2, 3}, {1, 4}, {5}.
    columns = duplicates.placement_columns(TABLE, np.array([(2, 3)]))
    assert columns["cluster"].tolist() == [0, 1, 0, 0, 1, 2]
    assert columns["is_copy"].tolist() == [0, 0, 1, 0, 0, 0]  # any but the first
    assert columns["label_conflict"].tolist() == [0, 1, 0, 0, 1, 0]  # every member
    assert columns["no_place_reason"].tolist() == [
        *("", "label conflict with e.jpg", "copy of a.jpg"),
        *("", "label conflict with b.jpg", ""),
    ]
    # Of six pictures 4-1, 1-3 and 5-2 leave {0}, {1, 3, 4}, {2, 5}.
    different = TABLE.assign(sha256=list("abcdef"))
    near = np.array([(4, 1), (1, 3), (5, 2)])
    assert duplicates.placement_columns(different, near)["cluster"].tolist() == [0, 1, 2, 1, 1, 2]


def test_files_of_equal_bytes_count_as_one_picture_among_near_pairs() -> None:
    sketch = np.random.default_rng(0).integers(0, 256, SKETCH_SHAPE, dtype=np.uint8)
    sketches = np.random.default_rng(1).integers(0, 256, (6, *SKETCH_SHAPE), dtype=np.uint8)
    sketches[[0, 2, 3]] = sketch  # rows 0 and 2 are one file twice; row 3 looks the same
    thumbnails = np.random.default_rng(2).integers(0, 256, (6, *THUMBNAIL_SHAPE), dtype=np.uint8)
    thumbnails[2] = thumbnails[0]
    thumbnails[5] = thumbnails[3]  # which only the second detector can tell
    greys = {"sketch": map(bytes, sketches), "thumbnail": map(bytes, thumbnails)}
    pairs, counts = duplicates.near_duplicates(
        TABLE.assign(**{k: [*of] for k, of in greys.items()})
    )
    assert pairs.tolist() == [[0, 3], [3, 5]]
    assert (counts["pairs"], counts["pairs_by_either"]) == (1, 2)
    assert counts["correlation"]["pairs_not_found_by_hash"] == 1
    assert counts["correlation"]["method"].startswith("correlation of details")
