"""Whatever a picture comes back as, the audit finds it; what is not one picture it leaves alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from benchmark.data import packing
from benchmark.data.dataset import FaceSet
from benchmark.data.replays import PUBLISHED_VERSION, replayed_parts
from benchmark.data.split_audit import Match, PartOverlap, SplitAudit, audit_split, highest_accuracy
from benchmark.data.splits import part_rows
from benchmark.errors import DataError
from tests.faces.sources import encoded, folder_of, zip_of
from tests.faces.split_parts import CHANGES, PX, Change, drawn, listed, part

FACES = drawn(12)


def named(first: int, last: int, prefix: str = "face") -> dict[str, Image.Image]:
    return {f"{prefix}{number}.jpg": FACES[number] for number in range(first, last)}


def only_overlap(audit: SplitAudit) -> PartOverlap:
    (overlap,) = audit.overlaps
    return overlap


def counts(audit: SplitAudit) -> tuple[int, int, int, int]:
    overlap = only_overlap(audit)
    return (
        *(overlap.n_same_name, overlap.n_same_bytes, overlap.n_near_duplicates),
        overlap.n_leaking,
    )


def matches(audit: SplitAudit) -> list[Match]:
    return [match for _, match in audit.pairs()]


def test_other_faces_are_clean(tmp_path: Path) -> None:
    audit = audit_split([part(tmp_path / "a", named(0, 6)), part(tmp_path / "b", named(6, 12))])
    assert (audit.verdict, counts(audit), matches(audit)) == ("clean", (0, 0, 0, 0), [])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_renamed_and_changed_copy_is_a_near_duplicate(tmp_path: Path, change: Change) -> None:
    train = part(tmp_path / "a", named(0, 6))
    test = part(tmp_path / "b", {"copy.jpg": FACES[2], "copy2.jpg": FACES[9]}, change)
    audit = audit_split([train, test])
    assert (audit.verdict, counts(audit)) == ("leaking", (0, 0, 1, 1))
    (match,) = matches(audit)
    assert (match.file, match.other_file) == ("copy.jpg", "face2.jpg")
    assert match.is_mirrored == (change is CHANGES["mirrored"])


def test_a_renamed_copy_of_the_same_bytes_is_found(tmp_path: Path) -> None:
    test = part(tmp_path / "b", {"x/copy.jpg": FACES[1], **named(6, 9)})
    audit = audit_split([part(tmp_path / "a", named(0, 6)), test])
    assert (counts(audit), only_overlap(audit).leaking_fraction) == ((0, 1, 0, 1), 1 / 4)


def test_a_file_counts_once_however_often_it_is_found(tmp_path: Path) -> None:
    train = part(tmp_path / "a", {"face0.jpg": FACES[0], "again.jpg": FACES[0]})
    part(train, {"small.jpg": FACES[0]}, CHANGES["re-encoded"])
    audit = audit_split([train, part(tmp_path / "b", named(0, 1))])
    assert (counts(audit), len(matches(audit))) == ((1, 1, 1, 1), 3)


def test_of_a_film_every_pair_is_told_though_a_file_counts_once(tmp_path: Path) -> None:
    frames = {
        f"{quality}.jpg": encoded(FACES[0], quality=quality, subsampling=0)
        for quality in range(40, 80)
    }
    train = folder_of(tmp_path / "a", dict(list(frames.items())[::2]))
    test = folder_of(tmp_path / "b", dict(list(frames.items())[1::2]))
    audit = audit_split([train, test])
    assert counts(audit) == (0, 0, 20, 20)
    assert len(only_overlap(audit).examples) == 1
    told = {(match.file, match.other_file) for match in matches(audit)}
    assert len(told) == len(matches(audit)) == 20 * 20


def test_the_nearest_of_several_is_shown(tmp_path: Path) -> None:
    train = part(tmp_path / "a", {"far.jpg": FACES[0]}, CHANGES["mirrored"])
    part(train, {"near.png": FACES[0]}, CHANGES["as PNG"])
    test = part(tmp_path / "b", {"copy.bmp": FACES[0]}, CHANGES["as BMP"])
    (shown,) = only_overlap(audit_split([train, test])).examples.values()
    # PNG and BMP lose nothing: no bit differs.
    assert (shown.other_file, shown.bits_apart) == ("near.png", 0)


def test_a_namesake_that_is_near_is_told_as_one_match(tmp_path: Path) -> None:
    train = part(tmp_path / "a", {"0.png": FACES[0]}, CHANGES["as PNG"])
    audit = audit_split([train, part(tmp_path / "b", {"0.jpg": FACES[0]})])
    assert [(match.found_by, match.name) for match in matches(audit)] == [
        ("near-duplicate", "other extension")
    ]


def test_a_name_that_stands_for_another_picture_does_no_harm(tmp_path: Path) -> None:
    test = part(tmp_path / "b", {"face0.jpg": FACES[6], "x/face1.png": FACES[7]})
    audit = audit_split([part(tmp_path / "a", named(0, 6)), test])
    assert (audit.verdict, only_overlap(audit).n_other_pictures) == ("clean", 2)
    assert {match.finding for match in matches(audit)} == {"other pictures"}


def test_lists_are_compared_by_name(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", "x/a.jpg", "x/b.jpg", "x/c.jpg")
    audit = audit_split([train, listed(tmp_path / "test.txt", "./x/b.jpg", "x/d.jpg")])
    assert (audit.verdict, counts(audit)) == ("leaking", (1, 0, 0, 1))
    assert audit.n_compared(0) == (0, 0)


@pytest.mark.parametrize(
    ("name", "other", "likeness"),
    [
        ("a/1.jpg", "b/1.jpg", "other folder"),
        ("1.jpg", "/data/1.jpg", "other folder"),
        ("A.JPG", "a.jpg", "case"),
        ("X/a.jpg", "x/a.jpg", "case"),
        ("a.png", "a.jpg", "other extension"),
        ("a.jpg", "b/A.jpg.chip.jpg", "other extension"),
        ("00123", "00123.jpg", "other extension"),
    ],
)
def test_names_that_are_alike_leave_it_undecided(
    tmp_path: Path, name: str, other: str, likeness: str
) -> None:
    train = listed(tmp_path / "train.txt", other, "z.jpg")
    audit = audit_split([train, listed(tmp_path / "test.txt", name, "y.jpg")])
    assert (audit.verdict, only_overlap(audit).n_undecided) == ("undecided", 1)
    assert matches(audit) == [Match(name, other, "name", likeness, "undecided")]  # type: ignore[arg-type]


def test_numbers_that_begin_anew_in_each_folder_say_nothing(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", "cats/1.jpg", "dogs/1.jpg")
    audit = audit_split([train, listed(tmp_path / "test.txt", "cows/1.jpg")])
    assert audit.verdict == "clean"


@pytest.mark.parametrize("made", [folder_of, zip_of])
def test_listed_pictures_are_found_and_compared(
    tmp_path: Path, made: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    faces = {f"faces/{name}": encoded(face) for name, face in named(0, 4).items()}
    faces["faces/sub/copy.png"] = CHANGES["as PNG"](FACES[0])
    images = made(tmp_path / "images", faces)
    train = listed(tmp_path / "train.txt", "/home/me/face0.jpg", "faces/face1.jpg")
    test = listed(tmp_path / "test.txt", "copy.png", "face2", "lost.jpg")
    audit = audit_split([train, test], images)
    assert (audit.verdict, counts(audit)) == ("leaking", (0, 0, 1, 1))
    assert (audit.not_at_hand(0), audit.not_at_hand(1)) == ([], ["lost.jpg"])


def test_of_several_files_of_a_name_the_one_with_most_folders_alike_is_taken(
    tmp_path: Path,
) -> None:
    faces = {"old/cats/1.jpg": FACES[0], "cats/1.jpg": FACES[1], "dogs/1.jpg": FACES[2]}
    images = part(tmp_path / "images", faces)
    train = listed(tmp_path / "train.txt", "/data/old/cats/1.jpg", "dogs/1.jpg")
    test = listed(tmp_path / "test.txt", "/data/dogs/1.jpg", "1.jpg")
    audit = audit_split([train, test], images)
    assert audit.not_at_hand(1) == ["1.jpg"]  # three are called so
    assert [match.found_by for match in matches(audit)] == ["bytes"]


def test_a_picture_is_read_once_for_all_lists_that_name_it(tmp_path: Path) -> None:
    images = part(tmp_path / "images", named(0, 4))
    train = listed(tmp_path / "train.txt", "face0.jpg", "face1.jpg")
    audit = audit_split([train, listed(tmp_path / "test.txt", "face1.jpg", "face2.jpg")], images)
    assert (len(audit.pictures.sha256), counts(audit)) == (3, (1, 1, 0, 1))


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ("nowhere", "--images .*nowhere does not exist"),
        ("list.txt", "is no folder and no archive"),
        ("faces", "none of the 1 names of list is under .*faces; the first is a.jpg"),
    ],
)
def test_pictures_that_cannot_be_found_are_told(tmp_path: Path, images: str, sentence: str) -> None:
    part(tmp_path / "faces", named(0, 1))
    lists = [listed(tmp_path / "list.txt", "a.jpg"), listed(tmp_path / "test.txt", "b.jpg")]
    with pytest.raises(DataError, match=sentence):
        audit_split(lists, tmp_path / images)


def test_pictures_that_cannot_be_decoded_are_named_and_still_compared_by_bytes(
    tmp_path: Path,
) -> None:
    broken = encoded(FACES[0])[:-400]
    train = folder_of(part(tmp_path / "a", named(1, 4)), {"broken.jpg": broken, "empty.jpg": b""})
    test = folder_of(part(tmp_path / "b", named(6, 8)), {"copy.jpg": broken, "void.jpg": b""})
    audit = audit_split([train, test])
    assert [file for file, _ in audit.unusable(1)] == ["copy.jpg", "void.jpg"]
    assert "the file is empty" in audit.unusable(1)[1][1]
    assert [(match.file, match.other_file) for match in matches(audit)] == [
        ("copy.jpg", "broken.jpg")
    ]
    assert (audit.n_compared(1), audit.verdict) == ((3, 2), "leaking")


def test_one_name_for_two_pictures_that_cannot_be_compared_is_undecided(tmp_path: Path) -> None:
    train = folder_of(part(tmp_path / "a", named(1, 4)), {"x.jpg": encoded(FACES[0])[:-400]})
    audit = audit_split([train, part(tmp_path / "b", {"x.jpg": FACES[0]})])
    assert [match.finding for match in matches(audit)] == ["undecided"]


def test_empty_pictures_are_not_near_each_other(tmp_path: Path) -> None:
    black, white = Image.new("RGB", (PX, PX)), Image.new("RGB", (PX, PX), "white")
    train = part(tmp_path / "a", {**named(0, 2), "black.jpg": black})
    audit = audit_split([train, part(tmp_path / "b", {**named(6, 8), "white.jpg": white})])
    assert audit.verdict == "clean"
    assert "too plain" in dict(audit.unusable(0))["black.jpg"]


def test_each_two_parts_are_compared_and_training_is_known(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", "a.jpg", "b.jpg")
    val = listed(tmp_path / "val.txt", "c.jpg")
    test = listed(tmp_path / "test.txt", "b.jpg", "c.jpg")
    audit = audit_split([train, val, test])
    found = [(o.part, o.other_part, o.is_training, o.n_leaking) for o in audit.overlaps]
    assert found == [
        *(("val", "train", True, 0), ("test", "train", True, 1)),
        ("test", "val", False, 1),
    ]


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = part(tmp_path / "a", named(0, 8))
    test = part(tmp_path / "b", named(4, 12, "copy"), CHANGES["re-encoded"])
    alone = matches(audit_split([train, test]))
    monkeypatch.setattr(packing, "MIN_FACES_TO_SHARE", 1)
    monkeypatch.setattr(packing, "BATCH_FACES", 3)
    monkeypatch.setattr(packing, "n_cores", lambda: 2)
    assert matches(audit_split([train, test])) == alone
    assert len(alone) == 4


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told = []
    audit_split(
        [part(tmp_path / "a", named(0, 3)), part(tmp_path / "b", named(6, 8))],
        on_progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert told == [("reading pictures", 5, 5), ("looking for near-duplicates", 5, 5)]


def test_the_two_protocols_are_told_apart_by_their_lists(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    table = drawn_faces.table

    def audited(parts: dict[str, object], folder: Path) -> SplitAudit:
        lists = [
            listed(folder / f"{name}.txt", *table["file"].iloc[rows])
            for name, rows in parts.items()
        ]
        return audit_split(lists)

    leaking = audited(replayed_parts(table, PUBLISHED_VERSION), tmp_path / "published")  # type: ignore[arg-type]
    clean = audited(part_rows(table), tmp_path / "ours")  # type: ignore[arg-type]
    assert (leaking.verdict, clean.verdict) == ("leaking", "clean")
    # 0.80 expected; the binomial sd for 24 test faces is 0.08.
    assert 0.5 < leaking.overlaps[1].leaking_fraction <= 1


def test_the_highest_accuracy_is_that_of_a_network_that_forgets_nothing() -> None:
    # 80 of 100 faces seen and answered rightly, 70 % of the other 20: 80 + 14.
    assert highest_accuracy(0.7, 0.8) == pytest.approx(0.94)
    assert highest_accuracy(0.7, 0) == 0.7


@pytest.mark.parametrize("honest", [0, 1, 70, -0.5, float("nan")])
def test_an_accuracy_that_is_no_fraction_is_refused(honest: float) -> None:
    with pytest.raises(DataError, match=r"above 0 and below 1, as 0.7 for 70 %"):
        highest_accuracy(honest, 0.5)
