"""Where errors become sentences: exit codes, tracebacks only on demand, and a door that opens quickly."""

import json
import os
import subprocess
import sys

import pytest

from etude.errors import EtudeError


def test_errors_are_sentences(etude, here):
    ended = etude("run", "nowhere.yaml")
    assert ended.code == 1 and ended.out == "" and ended.err.startswith("\nerror: nowhere.yaml:1:1: cannot be read")
    assert "Traceback" not in ended.err
    told = etude("show", "nobody", "--json")
    assert told.code == 1 and json.loads(told.out)["error"].startswith("no artefact 'nobody'") and json.loads(told.out)["remedy"]


@pytest.mark.parametrize("arguments", [("--debug", "show", "nobody"), ("show", "nobody", "--debug"), ("show", "--debug", "nobody")])
def test_a_traceback_on_demand(etude, here, arguments):
    with pytest.raises(EtudeError, match="nobody"):
        etude(*arguments)
    assert etude("show", "nobody").code == 1, "the next one is not asked for it"


def test_a_bug_is_called_one(etude, here, monkeypatch):
    def broken(**_how):
        raise ZeroDivisionError("it was zero")

    monkeypatch.setattr("etude.compose.library.list_", broken)
    ended = etude("list")
    assert ended.code == 70 and "this is a bug in etude: ZeroDivisionError: it was zero" in ended.err
    assert "etude --debug" in ended.err and "Traceback" not in ended.err
    with pytest.raises(ZeroDivisionError):
        etude("list", "--debug")


def test_interrupted_outside_of_the_steps(etude, here, monkeypatch):
    """Where typer alone would end with code 130 and no word, or with "Aborted!" and 1."""

    def interrupted(*_args, **_how):
        raise KeyboardInterrupt

    monkeypatch.setattr("etude.compose.begun.prepare", interrupted)
    ended = etude("run", "colours.yaml")
    assert ended.code == 130 and ended.err.endswith("\nstopped; the same command goes on from the newest checkpoint\n")
    monkeypatch.setattr("etude.compose.library.list_", interrupted)
    assert etude("list").err == "\nstopped\n"


FLOOD = """
import sys
from etude.cli import main

@main.app.command()
def flood():
    for _ in range(100_000):
        print("x" * 80)

sys.argv = ["etude", "flood"]
main.main()
"""


def test_a_reader_that_has_seen_enough():
    flood = subprocess.Popen([sys.executable, "-c", FLOOD], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert flood.stdout.read(1) == b"x"
    flood.stdout.close()
    assert (flood.stderr.read(), flood.wait(60)) == (b"", 0)


def test_help_without_heavy_libraries(tmp_path):
    show = "import sys; sys.argv = ['etude', *sys.argv[1:]]\nfrom etude.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
    show += "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'transformers', 'numpy', 'peft', 'pyarrow', 'rich'}))"
    for arguments in (["--help"], ["run", "--help"], ["data", "show", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", show, *arguments], capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=True
        )
        assert ended.stdout.splitlines()[-1] == "[]", arguments
