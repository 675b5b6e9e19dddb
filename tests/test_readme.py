"""What the README tells people to type can be typed: its commands, its recipe, its Python."""

import re
import shlex
from pathlib import Path

import pytest
from small_project import answers
from typer.main import get_command

import etude
from etude.cli.main import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Arguments of every `etude …`, comments taken off."""
    lines = re.sub(r"\s+#.*", "", "\n".join(blocks("sh")))
    return [shlex.split(found) for found in re.findall(r'uv run etude ((?:"[^"]*"|[^\n"])*)', lines)]


def test_there_are_some():
    assert {arguments[0] for arguments in commands()} >= {"run", "init", "chat", "show", "data", "doctor"}


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_is_understood(arguments):
    command = get_command(app)
    context = command.make_context("etude", list(arguments))
    while hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(context, list(arguments))
        context = command.make_context(name, list(arguments), parent=context)


def test_overrides_fit_the_recipe_that_init_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answers(tmp_path / "my.jsonl")
    etude.init("my.jsonl", to=Path("mine.yaml"))
    found = [one for arguments in commands() if arguments[:2] == ["run", "mine.yaml"] for one in arguments if "=" in one]
    assert found
    for override in found:
        etude.read_recipe("mine.yaml", [override])


def test_the_recipe_and_the_python(tmp_path):
    (recipe,) = blocks("yaml")
    (tmp_path / "support.yaml").write_text(recipe)
    (code,) = blocks("python")
    compile(code, "README.md", "exec")
    (override,) = re.findall(r'run\([^\[]*\["(.*?)"\]', code)
    loaded = etude.read_recipe(str(tmp_path / "support.yaml"), [override])
    assert f'etude.load("{loaded.recipe.name}")' in code, "what the recipe makes is what is loaded"
    assert set(re.findall(r"etude\.(\w+)", code)) <= set(etude.__all__)
    assert all(hasattr(etude.Model, name) for name in re.findall(r"model\.(\w+)", code))
