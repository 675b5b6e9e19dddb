"""The command line in this process: arguments in, exit code and both streams out."""

import io
import sys
from dataclasses import dataclass

import pytest
import small_project

from etude.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return small_project.make_base(tmp_path_factory.mktemp("bases") / "little")


@pytest.fixture
def etude(capsys, monkeypatch):
    """Runs `etude …` where the test stands."""

    def run(*arguments: object, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["etude", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        streams = capsys.readouterr()
        return Ended(int(code), streams.out, streams.err)

    return run


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """A project in which `colours` was run twice, the second time for longer."""
    import etude as package

    folder = tmp_path_factory.mktemp("made")
    small_project.answers(folder / "answers.jsonl")
    small_project.pairs(folder / "pairs.jsonl")
    file = small_project.recipe(folder / "colours.yaml", base, {"sft": small_project.stage(folder / "answers.jsonl")})
    for steps in (2, 4):
        package.run(str(file), [f"stages.sft.train.steps={steps}"], project=folder)
    return folder


@pytest.fixture
def here(made, monkeypatch):
    """Standing in that project."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", "80")
    return made
