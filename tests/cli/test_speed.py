"""`facebench speed` as a person meets it: one table, one file, and every wrong turn."""

import json
from pathlib import Path

from tests.cli.test_run import facebench


def test_a_table_fits_a_terminal_and_the_file_has_every_number(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    tiny = ("--images", "32", "--rounds", "1", "--workers", "0", "--device", "cpu")
    places = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path)
    shown = facebench("speed", "--rows", "data,cnn", *tiny, "--against", "timm", *places)
    assert shown.exit_code == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for text in ("SYNTHETIC FACES", "small CNN", "32", "PIL decodes JPEG", "timm"):
        assert text in shown.stdout
    found = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["data", "cnn"]
    cnn = found["rows"][1]
    assert cnn["images"] == 32
    assert set(cnn["ways"]) == {"plain", "ours", "timm"}
    (plain,), (ours,) = (cnn["ways"][name]["rounds"] for name in ("plain", "ours"))
    assert cnn["ratio"]["middle"] == plain["seconds"] / ours["seconds"]


def test_a_wrong_word_is_one_sentence_and_exit_code_two(drawn_data_dir: Path) -> None:
    for arguments, said in (
        (("--rows", "vgg61"), "there is no row 'vgg61'"),
        (("--against", "keras"), "--against names 'keras'"),
        (("--device", "abacus"), "device 'abacus'"),
    ):
        result = facebench("speed", *arguments, "--dataset", "drawn", "--data-dir", drawn_data_dir)
        assert result.exit_code == 2, arguments
        assert said in result.stderr
        assert "Traceback" not in result.stderr
