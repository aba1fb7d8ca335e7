"""`facebench compare`, `leak` and `subsets`: paired differences, and what two studies found."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli import options
from benchmark.cli.options import option
from benchmark.cli.output import CommandResult, busy, out, print_points, print_table, tell
from benchmark.errors import require
from benchmark.files import write_text
from benchmark.reporting import tables as forms
from benchmark.tasks import TASKS

MOST_NOTES: Final = 5
"""Lines under a comparison on the terminal."""
READING: Final = "Group minus reference, 95 % intervals; not significant does not mean equal."


def compare(
    answer: options.Answer,
    what: Annotated[list[str], typer.Argument(
        metavar="RUN...", autocompletion=options.complete_run,
        help="A run's id (8 digits or more), an experiment (all its finished seeds) or a suite "
        "(all its experiments).")],
    task: Annotated[
        list[str] | None, option("age_group, gender or race; all if left out.")] = None,
    dataset: options.OnDataset = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:  # fmt: skip
    """Tell whether one network predicts better than another, and by how much.

    Paired on the same test faces, each against the first. Of a suite, or of one experiment named
    alone: MTL networks against their single-task counterparts, and each experiment against the one
    that its definition names. One seed permits no claim about an experiment.

    Examples:
      facebench compare mtl-cnn-none-full-short
      facebench compare quick --task age_group
      facebench compare 1123730c00 3c32f0f3cf --json
    """
    from benchmark.comparison import pairs, wording
    from benchmark.reporting.board_tables import pairs_table, scores_table
    from benchmark.reporting.columns import comparison_data

    for name in task or ():
        require(name in TASKS, f"unknown task {name!r}", allowed=", ".join(TASKS))
    tasks = [name for name in TASKS if not task or name in task]
    library = options.open_library(runs_dir, data_dir, answer)
    with busy("comparing"):
        found = pairs.compare(library, what, dataset=dataset, tasks=tasks)
    data = answer.data = comparison_data(found)
    drawn, tables, notes = data["drawn"], found["tables"].values(), data["notes"]
    title = f"{'SYNTHETIC FACES · ' * drawn}Comparison on {data['dataset']}"
    out.print(Text(title, style="bold yellow" if drawn else "bold"))
    for setting in dict.fromkeys(line.group.setting for lines, _ in tables for line in lines):
        out.print(Text(wording.setting_text(setting), style="dim"))
    out.print()
    print_table(scores_table(found))
    for table, (lines, gaps) in zip(data["tables"], tables, strict=True):
        out.print(Text(f"\n{table['title']}", style="bold underline"))
        if lines:
            print_table(pairs_table(lines))
            out.print(Text(f"{table['family']}\n", style="dim"))
        for sentence in table["sentences"]:
            out.print(Text(sentence))
        print_points(wording.gap_sentences(gaps))
    out.print()
    perceived = "" if drawn else "Labels are perceived. "
    n_all = len(notes) + len(data["limits"])
    closing = f"{perceived}--json has all {n_all} notes and limitations."
    particular = [note for note in notes if note not in wording.GENERAL_NOTES]
    print_points((*particular[: MOST_NOTES - 2], READING, closing))


def leak(
    answer: options.Answer,
    suite: Annotated[str | None, option(
        "A suite of run groups that end as `leak`'s do; headline, leak and leak_vgg16 if left "
        "out.", autocompletion=options.complete_suite)] = None,
    dataset: options.OnDataset = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:  # fmt: skip
    """Decompose a leaky score: accuracy on faces not seen in training, effect of each condition.

    Reads the stored predictions of a suite's runs; writes tables (.md) and a figure (.png) of
    each network into RUNS_DIR/leaderboards, all of them marked LEAKY.

    Examples:
      facebench run --suite leak --seeds 0,1,2
      facebench leak
    """
    _study(answer, "leak", suite, dataset, runs_dir, data_dir)


def subsets(
    answer: options.Answer,
    suite: Annotated[
        str,
        option("A suite of subsets in three run groups.", autocompletion=options.complete_suite),
    ] = "subsets",
    dataset: options.OnDataset = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Test whether specialists predict age groups of subsets better than one network of all faces.

    Reads the stored predictions of a suite's runs; writes tables (.md) and a figure (.png) into
    RUNS_DIR/leaderboards.

    Examples:
      facebench run --suite subsets --seeds 0,1,2
      facebench subsets
    """
    _study(answer, "subsets", suite, dataset, runs_dir, data_dir)


def _study(
    answer: CommandResult, command: str, suite: str | None, asked: str | None,
    runs_dir: Path, data_dir: Path,
) -> None:  # fmt: skip
    """Study a suite's runs on one data set; write tables and figures, and print the page."""
    from benchmark.comparison import leak_study, library, subset_study
    from benchmark.evaluation.figures import write_png
    from benchmark.evaluation.predictions import limits_of
    from benchmark.reporting.board_tables import text_table
    from benchmark.reporting.figures import study_figure

    suites = (suite,) if suite else leak_study.LEAK_SUITES
    experiments = [item for name in suites for item in registry.experiments_of(name)]
    named = command if command in suites else suites[0]
    runs = options.open_library(runs_dir, data_dir, answer, suite=named)
    dataset = library.choose_dataset(runs, suites, asked, named)
    study_of = leak_study.leak_study if command == "leak" else subset_study.subset_study
    page_of = leak_study.leak_page if command == "leak" else subset_study.subset_page
    with busy("comparing"):
        page = page_of(study_of(runs, experiments, dataset))
    run = next(run for run in runs.runs if run.setting.dataset == dataset)
    limits = limits_of(run.record.about["dataset"])
    heading = f"{'SYNTHETIC FACES · ' * page.data['drawn']}{page.title}"
    tables = [*map(text_table, page.tables)]
    lines = [f"# {heading}", "", *(f"- {text}" for text in page.sentences), ""]
    notes = (*page.notes, *limits)
    lines += [*map(forms.markdown, tables), *(f"- {text}" for text in notes), ""]
    stem = runs_dir / "leaderboards" / f"{suite or command}-{dataset}"
    files = [f"{stem}.md"]
    write_text(Path(files[0]), "\n".join(lines))
    for figure in page.figures:
        files.append(f"{stem}{'-' * bool(figure.name)}{figure.name}.png")
        write_png(Path(files[-1]), study_figure(figure, dataset, drawn=page.data["drawn"]))
    answer.data = page.data | {"sentences": list(page.sentences), "files": files}
    out.print(Text(heading, style="bold"))
    for table in tables:
        out.print()
        print_table(table)
    parts = {"The answer": page.sentences, "How to read it": page.notes, "Limitations": limits}
    for title, texts in parts.items():
        out.print(Text(f"\n{title}", style="bold"))
        print_points(texts)
    tell(f"\nWritten: {', '.join(files)}")
