"""The study's rows beside ours: printed, leak-free, replayed."""

import dataclasses

from benchmark import registry
from benchmark.comparison.leaderboard import Leaderboard
from benchmark.comparison.rows import Row
from benchmark.experiment.definition import StudyRow
from benchmark.reporting.board_tables import markdown, page
from benchmark.reporting.columns import as_data, study_table
from tests.reporting.boards import a_board, a_row

MISSING = "not measured: weights missing (vggface of vgg16; `facebench weights list`)"


def board() -> Leaderboard:
    """Give two rows of the study, one finished and replayed, and a row that is not the study's."""
    ours = a_row("mtl-vgg16-imagenet-block5", 0.7, devices=("AMD EPYC, 1 thread",))
    face = Row(
        "missing",
        "mtl-vgg16-vggface-block5",
        remarks=(MISSING,),
        study=StudyRow("3.2", age_group=0.9109, gender=0.9644, race=0.9440),
        definition=ours.definition,
    )
    other = a_row("mtl-cnn-none-full", 0.6, study=None)
    made = a_board(ours, other, face)
    suites = {"study": (face.name, other.name, ours.name)}
    replay = a_row("mtl-vgg16-imagenet-block5-published", 0.915, leaky=True, seeds=(0,))
    return dataclasses.replace(made, suites=suites, replays={ours.name: replay})


def test_rows_of_the_study_stand_in_the_suite_s_order_with_printed_leak_free_and_replayed() -> None:
    rows = [[cell.text for cell in row.cells] for row in study_table(board()).rows]
    assert rows == [
        ["3.2", "mtl-vgg16-vggface-block5", "printed 91.1 / 96.4 / 94.4", "–", "–"]
        + ["weights not available"],
        ["2.2", "mtl-vgg16-imagenet-block5", "printed 90.3 / 97.6 / 92.5"]
        + ["age group 70.0 ± 1.0 (68.0–72.0)\ngender 70.0 ± 1.0 (68.0–72.0)\n"
           "race 70.0 ± 1.0 (68.0–72.0)"]
        + ["replayed 91.5 / 91.5 / 91.5", "CPU, 3 seeds"],
    ]  # fmt: skip


def test_a_leaky_row_is_never_ours() -> None:
    leaky = a_row("mtl-vgg16-imagenet-block5", 0.95, leaky=True)
    made = dataclasses.replace(a_board(leaky), suites={"study": (leaky.name,)})
    assert not study_table(made).rows


def test_data_and_documents_carry_the_rows_and_other_leaderboards_do_not() -> None:
    data = as_data(board())["study"]
    assert [row["row"] for row in data] == ["3.2", "2.2"]
    assert data[1]["leak_free"]["gender"]["mean"] == 0.7
    assert data[1]["replayed_leaky"]["gender"]["mean"] == 0.915
    assert "replayed 91.5 / 91.5 / 91.5" in markdown(board())
    assert "study" not in as_data(a_board(a_row()))


def test_a_suite_is_the_study_s_when_half_of_its_experiments_are_honest_rows_of_it() -> None:
    assert registry.is_of_the_study(list(registry.experiments_of("study")))
    assert not registry.is_of_the_study(list(registry.experiments_of("quick")))
    assert not registry.is_of_the_study(())


def test_a_page_sets_tasks_below_each_other_and_phones_show_every_cell_that_says_something() -> (
    None
):
    text = page(board())
    assert "age group 70.0 ± 1.0 (68.0–72.0)<br>gender" in text
    assert 'data-value="printed 90.3 / 97.6 / 92.5"' in text
