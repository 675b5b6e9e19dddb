"""Every command, as somebody at a terminal meets it."""

import json

import pytest
from small_project import recipe, stage


def strict(text: str):
    """JSON without the extensions that Python would read."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("verb", ["", "run", "init", "schema", "list", "show", "chat", "compare", "clean", "doctor", "data", "data show"])
def test_help(etude, verb):
    ended = etude(*verb.split(), "--help")
    assert ended.code == 0 and ended.out.startswith(f"Usage: etude {verb}".rstrip()) and not ended.err


def test_version_and_nothing(etude):
    from etude import __version__

    assert etude("--version").out == f"etude {__version__}\n"
    assert "Usage: etude" in etude().out + etude().err


def test_wrong_usage(etude):
    ended = etude("rum")
    assert ended.code == 2 and "rum" in ended.err and "Traceback" not in ended.err


def test_run_and_run_again(etude, base, tmp_path, monkeypatch):
    from small_project import answers

    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / "colours.yaml", base, {"sft": stage(answers(tmp_path / "answers.jsonl"))})
    dry = etude("run", "colours.yaml", "--dry-run")
    assert dry.code == 0 and "colours would be made" in dry.out and "Nothing was trained, and no artefact was made." in dry.out
    assert strict(etude("run", "colours.yaml", "--dry-run", "--json").out)[0]["artefact"] == "colours"
    assert etude("list").out == "no artefacts yet; `etude run quickstart` makes one\n"
    first = etude("run", "colours.yaml")
    assert first.code == 0 and "training colours" in first.err
    for line in ("etude chat colours\n", "etude show colours\n", "report        .etude/artefacts/colours/1/report.html\n"):
        assert line in first.out
    assert "loss on held-out answers" in first.out
    again = etude("run", "colours.yaml", "--json")
    result = strict(again.out)
    assert result["finished"] and result["stages"]["sft"]["reused"] and result["stages"]["sft"]["artefact"] == "colours@1"
    told = etude("run", "colours.yaml")
    assert "colours@1 is there already" in told.out and "etude chat colours@1" in told.out
    assert "colours@1 is there already, and would be used as it is" in etude("run", "colours.yaml", "--dry-run").out
    other = strict(etude("run", "colours.yaml", "stages.sft.train.steps=1", "--json").out)["stages"]["sft"]
    assert other["artefact"] == "colours@2" and other["judgement"]["axes"] and other["report"].endswith("report.html")


def test_list_and_show(etude, here):
    listed = etude("list").out
    assert [line.split()[0] for line in listed.splitlines()] == ["artefact", "colours@2", "colours@1"]
    assert "little" in listed and "…" not in listed
    entries = strict(etude("list", "--json").out)
    assert [(entry["name"], entry["version"]) for entry in entries] == [("colours", 2), ("colours", 1)]
    shown = etude("show", "colours").out
    assert shown.startswith("colours@2\n") and ".etude/artefacts/colours/2/report.html" in shown and "└── colours@2" in shown
    assert strict(etude("show", "colours@1", "--json").out)["folder"].endswith("colours/1")
    missing = etude("show", "colour")
    assert (missing.code, missing.out) == (1, "") and "did you mean colours?" in missing.err


def test_clean(etude, here):
    said = etude("clean")
    assert "colours@1: colours@2 is newer" in said.out and "`etude clean --yes` does it" in said.out
    assert len(strict(etude("clean", "--json").out)["items"]) == 1
    assert len(strict(etude("list", "--json").out)) == 2, "it was only asked"


def test_clean_away(etude, base, tmp_path, monkeypatch):
    from small_project import answers

    monkeypatch.chdir(tmp_path)
    assert etude("clean").out == "nothing to throw away\n" and not (tmp_path / ".etude").exists()
    recipe(tmp_path / "colours.yaml", base, {"sft": stage(answers(tmp_path / "answers.jsonl"))}, evaluate=None)
    for steps in (1, 2):
        assert "it was not judged" in etude("run", "colours.yaml", f"stages.sft.train.steps={steps}").out
    assert "set free" in etude("clean", "--yes").out
    assert [entry["version"] for entry in strict(etude("list", "--json").out)] == [2]
    assert strict(etude("clean", "--json").out) == {"items": [], "freed": 0}


def test_compare(etude, here, base):
    same = etude("compare", "colours", "colours")
    assert same.code == 0 and "Cannot tell whether it is better" in same.out
    assert "report        .etude/comparisons/colours-colours/report.html" in same.out
    judgement = strict(etude("compare", base, "colours", "--json").out)
    loss = next(axis for axis in judgement["axes"] if axis["name"] == "loss on held-out answers")
    assert loss["verdict"] == "better" and loss["difference"]["value"] < 0
    back = strict(etude("compare", "colours", base, "--json").out)
    assert next(axis for axis in back["axes"] if axis["name"] == loss["name"])["verdict"] == "worse"


def test_chat_once(etude, here, base):
    answer = etude("chat", "colours", "What colour has thing 1?", "--max-new-tokens", "4")
    before = etude("chat", base, "What colour has thing 1?", "--max-new-tokens", "4")
    assert answer.code == before.code == 0 and answer.out.endswith("\n") and answer.out != before.out
    switched = etude("chat", "colours", "What colour has thing 1?", "--max-new-tokens", "4", "--parent")
    assert switched.out == before.out
    assert etude("chat", base, "x", "--parent").code == 1


def test_a_conversation(etude, here, base):
    question, few = "What colour has thing 1?", ("--max-new-tokens", "4")
    said = etude("chat", "colours", *few, stdin=f"{question}\n/parent\n/new\n{question}\n/what\n\n/bye\nnever read\n")
    assert said.code == 0
    alone, parent = etude("chat", "colours", question, *few).out, etude("chat", base, question, *few).out
    assert said.out == alone + parent, "a new conversation with the parent knows nothing of the one before"
    assert "now answering: its parent" in said.err and "unknown command /what" in said.err
    assert etude("chat", "colours", *few, stdin=question).out == alone, "the end of the input ends it too"
    assert "there is no adapter to switch off" in etude("chat", base, stdin="/parent\n").err
    longer = etude("chat", "colours", *few, stdin=f"{question}\n{question}\n")
    assert longer.out.startswith(alone) and longer.code == 0


def test_a_model_without_a_chat_template(etude, base, tmp_path):
    """It goes on from the bare question, as the Python function lets it."""
    import shutil

    import etude as package

    plain = tmp_path / "plain"
    shutil.copytree(base, plain, ignore=shutil.ignore_patterns("chat_template.jinja"))
    few, question = ("--max-new-tokens", "4"), "The quick brown"
    once = etude("chat", plain, question, *few)
    expected = package.chat(str(plain), question, max_new_tokens=4, project=tmp_path) + "\n"
    assert (once.code, once.out) == (0, expected), once.err
    said = etude("chat", plain, *few, stdin=f"{question}\n{question}\n")
    assert (said.code, said.out) == (0, expected * 2) and "no chat template" in said.err, "nothing is remembered"
    refused = etude("chat", plain, question, "--system", "Be brief.")
    assert refused.code == 1 and "without a system message" in refused.err


def test_init(etude, here, base, tmp_path, monkeypatch):
    assert "# " in etude("init", "answers.jsonl").out
    monkeypatch.chdir(tmp_path)
    told = etude("init", here / "answers.jsonl", "--base", base, "--to", "mine.yaml")
    assert told.code == 0 and told.err == "mine.yaml written; look through it, then: etude run mine.yaml\n"
    assert etude("init", here / "answers.jsonl", "--to", "mine.yaml").code == 1
    ended = etude("run", "mine.yaml", "stages.answer.data.context=128", "--dry-run")
    assert ended.code == 0 and "answers would be made" in ended.out


def test_data_show(etude, here, base):
    shown = etude("data", "show", "answers.jsonl", "--base", base, "--rows", "1")
    assert shown.code == 0 and "<|im_start|>user" in shown.out and "40 rows read" in shown.out
    assert strict(etude("data", "show", "answers.jsonl", "--base", base, "--json").out)["counts"]
    assert strict(etude("data", "show", "colours.yaml", "--json").out)["lengths"]
    assert "its stages are sft" in etude("data", "show", "colours.yaml", "--stage", "dpo").err
    assert "colours.jsonl" in etude("data", "show", "colours.jsonl", "--base", base).err


def test_schema(etude):
    assert strict(etude("schema").out)["properties"]["stages"]
    assert etude("schema", "--markdown").out.startswith("# ")


def test_doctor(etude, here):
    said = etude("doctor")
    assert said.code == 0 and "torch" in said.out and "compute type" in said.out
    assert {"device", "memory", "project"} <= {finding["what"] for finding in strict(etude("doctor", "--json").out)}
