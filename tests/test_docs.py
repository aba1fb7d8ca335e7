"""Documents stay true: every command they quote is one that the program takes."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from tests.docs_commands import ROOT, Quoted, commands_of, quoted_commands
from tests.results.conftest import RunBuilder, exact_predictions

ROOT_COMMAND = typer.main.get_command(app)
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of click, which typer carries within itself."""
QUOTED = quoted_commands()
OURS = [item for item in QUOTED if item.words[0] == "facebench"]
MAKE = [item for item in QUOTED if item.words[0] == "make"]
EXPERIMENT_NAME = re.compile(r"(age_group|gender|race|mtl)-[a-z0-9_]+-\S+")
TO_BE_WRITTEN = {"mtl-vgg19-imagenet-block5-gate", "mtl-resnet18-imagenet-full"}
"""Names that CONTRIBUTING.md shows how to add."""
TUNED_NAME = re.compile(r"(?P<base>.+)-(?:un)?tuned(?:_from_(?P<depth>\w+))?")
"""Of an experiment that comes into being by a search, as does the suite of all these."""


def told(item: Quoted) -> str:
    return f"{item.document}:{item.line} {item.text}"


def command_of(words: tuple[str, ...]) -> tuple[Any, list[str]]:
    """Follow the words to the command they name; give it and what it is given."""
    command: Any = ROOT_COMMAND
    rest = list(words[1:])
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    return command, rest


def check_that_the_program_takes(item: Quoted) -> None:
    command, given = command_of(item.words)
    is_group = hasattr(command, "commands")
    is_unknown = is_group and given and not given[0].startswith("-")
    assert not is_unknown, f"{told(item)}: no command {given[0]}"
    if item.kind == "inline":
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {"--help"} | {o for p in command.params for o in p.secondary_opts}
        assert {word.split("=")[0] for word in given if word.startswith("--")} <= known, told(item)
        return
    assert not is_group, told(item)
    try:
        command.make_context("facebench", [word for word in given if word != "--help"])
    except USAGE_ERROR as error:
        pytest.fail(f"{told(item)}: {error.format_message()}")


def test_quoted_commands_are_ones_that_the_program_takes() -> None:
    for item in OURS:
        check_that_the_program_takes(item)


def before_its_search(name: str) -> str:
    """Give the experiment that a search would make this one of; another name stays as it is."""
    found = TUNED_NAME.fullmatch(name)
    if found is None:
        return name
    base, depth = found["base"], found["depth"]
    return f"{base.rsplit('-', 1)[0]}-{depth}" if depth else base


def test_quoted_experiments_and_suites_are_registered() -> None:
    for item in OURS:
        names = {before_its_search(word) for word in item.words if EXPERIMENT_NAME.fullmatch(word)}
        assert names - TO_BE_WRITTEN <= set(registry.experiments()), told(item)
        if "--suite" in item.words[:-1]:
            suite = item.words[item.words.index("--suite") + 1]
            assert suite.isupper() or suite in {*registry.suites(), registry.TUNED}, told(item)


def test_quoted_make_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for item in MAKE:
        for word in item.words[1:]:
            name = word.split("=")[0]
            assert name in targets if "=" not in word else f"$({name}" in makefile, told(item)


def examples(command: Any, path: tuple[str, ...]) -> list[tuple[str, str]]:
    """Give the examples of every command's --help, with the command that shows them."""
    if hasattr(command, "commands"):
        inner = (examples(item, (*path, name)) for name, item in command.commands.items())
        return [found for examples_of_one in inner for found in examples_of_one]
    text = f"{command.help or ''}\n{command.epilog or ''}"
    # Typer keeps single line breaks of an epilog as a paragraph's own; a long example goes on.
    block = "```\n" + text.replace("\n  --", " --") + "\n```"
    return [(" ".join(path), item.text) for item in commands_of("--help", block)]


EXAMPLES = examples(ROOT_COMMAND, ("facebench",))


def test_every_command_has_examples_below_its_options_that_the_program_takes() -> None:
    def commands(command: Any, path: tuple[str, ...]) -> set[str]:
        if not hasattr(command, "commands"):
            assert "Examples:" not in (command.help or ""), path
            return {" ".join(path)}
        inner = (commands(item, (*path, name)) for name, item in command.commands.items())
        return set().union(*inner)

    assert commands(ROOT_COMMAND, ("facebench",)) == {path for path, _ in EXAMPLES}
    for path, text in EXAMPLES:
        (item,) = commands_of(f"{path} --help", f"```\n{text}\n```")
        check_that_the_program_takes(item)


RUN_HERE = [
    *(item for item in OURS if item.kind == "block"),
    *(Quoted("README.md", 0, ("facebench", *words.split()), "block") for words in (
        "doctor", "list --suite study", "weights list", "show mtl-cnn-none-full-short",
    )),
]  # fmt: skip
CHEAP = re.compile(r"facebench (list|show|weights list|doctor|compare quick|leaderboard|card)\b")


@pytest.fixture(scope="module")
def with_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs in mlruns/, as a reader has it after the commands before."""
    folder = tmp_path_factory.mktemp("reader")
    runs = RunBuilder(folder / "mlruns")
    runs.dataset |= {"name": "drawn-v1", "drawn": True}
    for name in ("mtl-cnn-none-full-short", "gender-cnn-none-full-short"):
        experiment = registry.experiment(name)
        runs.done(experiment, exact_predictions(30, 30, n=40, tasks=experiment.head.tasks))
    return folder


def runnable() -> list[Quoted]:
    """Choose what is cheap and needs no file of the reader's; each text once."""
    chosen = [item for item in RUN_HERE if CHEAP.match(item.text)]
    placeholders = re.compile(
        r"\b[A-Z]{3,}\b|--acknowledge|--out|depth|controls|tuned|--json .*--json"
    )
    return list({i.text: i for i in chosen if not placeholders.search(i.text)}.values())


def test_cheap_commands_do_what_the_documents_say(
    with_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_runs)
    before = sorted(os.listdir(with_runs))
    for item in runnable():
        answer = CliRunner().invoke(app, list(item.words[1:]))
        assert answer.exit_code == 0, f"{told(item)}: {answer.output}"
        assert answer.stdout.strip(), told(item)
        assert sorted(os.listdir(with_runs)) == before, told(item)
