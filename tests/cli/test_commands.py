"""Every command, as somebody at a terminal meets it."""

import json

import pytest
from small_project import recipe, stage


def strict(text: str):
    """JSON without the extensions that Python would read."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    "verb", ["", "run", "init", "schema", "list", "show", "name", "chat", "compare", "clean", "doctor", "data", "data show", "data check"]
)
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
    assert result["stages"]["sft"]["judgement"]["axes"], "as it was judged when it was made"
    told = etude("run", "colours.yaml")
    assert "loss on held-out answers" in told.out
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
    assert "colours@1: colours@2 is newer" in said.out and "the same command with --yes does it" in said.out
    assert [item["reference"] for item in strict(etude("clean", "--json").out)["items"] if item["reference"]] == ["colours@1"]
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
    assert strict(etude("clean", "--json").out) == {"items": [], "freed": 0, "unfinished": []}


def test_what_can_be_gone_on_with_stays(etude, base, tmp_path, monkeypatch):
    from small_project import answers

    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / "colours.yaml", base, {"sft": stage(answers(tmp_path / "answers.jsonl"))}, evaluate=None)
    etude("run", "colours.yaml")
    run = tmp_path / ".etude/runs/half-0123456789ab"
    (run / "checkpoints/step-00000100").mkdir(parents=True)
    described = {"name": "half", "identity": "0" * 64, "stage": "s", "parent": str(base), "started": "2026-01-01T00:00:00Z"}
    (run / "run.json").write_text(json.dumps(described))
    said = etude("clean", "--yes").out
    assert "1 unfinished run (" in said and "`etude clean --runs` shows them" in said and run.exists()
    assert [item["path"] for item in strict(etude("clean", "--json").out)["unfinished"]] == [str(run)]
    assert "half-0123456789ab: an unfinished run, saved at step 100, last worked on 0 minutes ago" in etude("clean", "--runs").out
    assert run.exists() and "set free" in etude("clean", "--runs", "--yes").out and not run.exists()


def test_names(etude, here):
    assert etude("name", "colours@1", "production").out == "colours@production is colours@1\n"
    assert etude("show", "colours@production").out.startswith("colours@1\n")
    assert "colours@1:" not in etude("clean").out
    assert etude("name", "colours", "production").out == "colours@production is colours@2\n"
    wrong = etude("name", "colours@1", "production", "--remove")
    assert wrong.code == 1 and "colours@production stands for colours@2, not for colours@1" in wrong.err
    assert etude("name", "colours", "production", "--remove").out == "colours@production is no more; colours@2 stays\n"
    assert etude("name", "colours", "production", "--remove").code == 1 and etude("show", "colours@production").code == 1


def test_every_byte_is_read_where_it_is_asked(etude, base, tmp_path, monkeypatch):
    from small_project import answers

    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / "colours.yaml", base, {"sft": stage(answers(tmp_path / "answers.jsonl"))}, evaluate=None)
    etude("run", "colours.yaml")
    whole = etude("show", "colours", "--verify")
    assert whole.code == 0 and "are as they were published" in whole.out
    weights = tmp_path / ".etude/artefacts/colours/1/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    spoilt = etude("show", "colours", "--verify", "--json")
    assert spoilt.code == 1 and "another content" in strict(spoilt.out)["problems"][0] and etude("show", "colours").code == 0


def test_what_was_mended_or_left_out_is_said(etude, base, tmp_path, monkeypatch):
    from small_project import answers

    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / "colours.yaml", base, {"sft": stage(answers(tmp_path / "answers.jsonl"))}, evaluate=None)
    etude("run", "colours.yaml")
    other = tmp_path / ".etude/artefacts/other/1"
    other.mkdir(parents=True)
    (other / "etude.json").write_text("{}")
    for verb in (["list"], ["show", "colours"], ["clean"]):
        ended = etude(*verb)
        assert ended.code == 0 and "left out: " in ended.err and "the record is damaged" in ended.err, verb


def test_compare(etude, here, base):
    same = etude("compare", "colours", "colours")
    assert same.code == 0 and "Cannot tell whether it is better" in same.out
    assert "report        .etude/comparisons/colours@2-colours@2-" in same.out
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


def test_data_check(etude, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    good = [json.dumps({"prompt": f"Say {i * i}", "completion": f"It is {i}, of course."}) for i in range(30)]
    (tmp_path / "good.jsonl").write_text("\n".join(good) + "\n")
    (tmp_path / "bad.jsonl").write_text("\n".join([*good, good[4], '{"prompt": "and?", "completion": ""}']) + "\n")
    clean = etude("data", "check", "good.jsonl", "--json")
    assert clean.code == 0 and strict(clean.out)["findings"] == []
    ended = etude("data", "check", "bad.jsonl", "--fix", "clean.jsonl", "--html", "page.html")
    assert ended.code == 1, "there are errors"
    for line in ("empty answers", "rows 32", "row 31 = row 5", "32 rows checked: 1 error, 1 warning", "not checked: benchmarks"):
        assert line in ended.out
    assert "30 rows kept, 2 left out" in " ".join(ended.out.split()) and "page          page.html" in ended.out
    assert (tmp_path / "clean.jsonl").read_text().splitlines() == good and "<svg" in (tmp_path / "page.html").read_text()
    assert etude("data", "check", "clean.jsonl").code == 0
    again = etude("data", "check", "bad.jsonl", "--html", "page.html", "--json")
    assert again.code == 1 and "page.html exists already" in strict(again.out)["error"]
