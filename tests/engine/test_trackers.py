import json
import sys

import pytest

from etude import catalog
from etude.engine.trackers.contract import Tracker, Tracking
from etude.errors import EtudeError

RECORDING = """
import json, pathlib
CALLS = pathlib.Path(__file__).with_name("calls.jsonl")
def note(name, /, *args, **kwargs):
    with CALLS.open("a") as file:
        file.write(json.dumps([name, list(args), kwargs]) + "\\n")
"""

STAND_INS = {
    "trackio": "class Run:\n def log(self, *a, **k): note('log', *a, **k)\n def finish(self): note('finish')\n"
    "def init(**k):\n note('init', **k)\n return Run()\n",
    "mlflow": "".join(
        f"def {n}(*a, **k): note('{n}', *a, **k)\n"
        for n in ("set_tracking_uri", "set_experiment", "start_run", "log_dict", "log_metrics", "end_run")
    ),
}
STAND_INS["wandb"] = STAND_INS["trackio"]
CONFIG = {"base": "smol", "stages": {"sft": {"train": {"steps": 2}}}}


def _tracker(kind: str, **options) -> Tracker:
    return catalog.find("tracker", kind)(**options)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Puts a recording module in the place of a third party's library."""

    def stand_in(kind: str):
        (tmp_path / f"{kind}.py").write_text(RECORDING + STAND_INS[kind])
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, kind, raising=False)
        return lambda: [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]

    yield stand_in
    for kind in STAND_INS:
        sys.modules.pop(kind, None)


@pytest.mark.parametrize("kind", catalog.TRACKERS)
def test_a_missing_library_gives_the_one_command(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard" if kind == "tensorboard" else kind, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    tracker = _tracker(kind)
    with pytest.raises(EtudeError, match=f"tracker '{kind}' needs {kind}") as error:
        Tracking([tracker], print).start("run", CONFIG)
    assert f"uv sync --extra {kind}" in error.value.remedy and f"pip install 'etude[{kind}]'" in error.value.remedy


def test_every_tracker_has_its_extra_in_the_package():
    from importlib.metadata import metadata

    assert set(catalog.TRACKERS) <= set(metadata("etude").get_all("Provides-Extra"))


def test_nothing_is_opened_when_another_library_is_missing(library, monkeypatch):
    library("wandb")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EtudeError, match="needs mlflow"):
        Tracking([_tracker("wandb"), _tracker("mlflow")], print).start("run", CONFIG)
    assert "note" in vars(sys.modules["wandb"]) and not sys.modules["wandb"].CALLS.exists()


EXPECTED = {
    "trackio": [
        ["init", [], {"project": "etude", "name": "a/run", "config": CONFIG, "resume": "allow", "space_id": None, "embed": False}],
        ["log", [{"loss": 0.5}], {"step": 1}],
        ["finish", [], {}],
    ],
    "wandb": [
        ["init", [], {"project": "etude", "entity": None, "name": "a/run", "id": "a-run", "resume": "allow", "config": CONFIG}],
        ["log", [{"loss": 0.5}], {"step": 1}],
        ["finish", [], {}],
    ],
    "mlflow": [
        ["set_tracking_uri", ["http://here"], {}],
        ["set_experiment", ["etude"], {}],
        ["start_run", [], {"run_name": "a/run"}],
        ["log_dict", [CONFIG, "recipe.json"], {}],
        ["log_metrics", [{"loss": 0.5}], {"step": 1, "synchronous": False}],
        ["end_run", [], {}],
    ],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_what_the_library_is_told(kind, library):
    calls = library(kind)
    tracking = Tracking([_tracker(kind, **({"server": "http://here"} if kind == "mlflow" else {}))], pytest.fail)
    tracking.start("a/run", CONFIG)
    tracking.log(1, {"loss": 0.5})
    tracking.finish()
    assert calls() == EXPECTED[kind]
    assert tracking.failures == {}


def test_tensorboard_is_told(tmp_path, monkeypatch):
    import types

    calls = []

    class SummaryWriter:
        def __init__(self, log_dir):
            calls.append(log_dir)

        def add_text(self, name, text, step):
            calls.append((name, json.loads(text.removeprefix("```json\n").removesuffix("\n```")), step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def close(self):
            calls.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tracking = Tracking([_tracker("tensorboard", folder="tb")], pytest.fail)
    tracking.start("run", CONFIG)
    tracking.log(3, {"loss": 0.5, "rate": 0.1})
    tracking.finish()
    assert calls == ["tb/run", ("recipe", CONFIG, 0), ("loss", 0.5, 3), ("rate", 0.1, 3), "closed"]


def test_a_failing_tracker_is_said_once_and_counted_and_the_others_go_on(library, monkeypatch):
    calls, said = library("wandb"), []
    library("mlflow")
    import mlflow

    def down(*arguments, **options):
        raise ConnectionError("server is down")

    monkeypatch.setattr(mlflow, "log_metrics", down)
    tracking = Tracking([_tracker("mlflow"), _tracker("wandb")], said.append)
    tracking.start("run", CONFIG)
    for step in range(3):
        tracking.log(step, {"loss": 0.5})
    tracking.finish()
    expected = "the tracker 'mlflow' failed in log (ConnectionError: server is down); the run goes on, and the journal has everything"
    assert said == [expected] and tracking.failures == {"mlflow": 3}
    assert [name for name, _, _ in calls() if name in ("log", "finish")] == ["log", "log", "log", "finish"]


def test_one_that_cannot_open_its_run_is_left_out(library, monkeypatch):
    calls, said = library("mlflow"), []
    import mlflow

    monkeypatch.setattr(mlflow, "start_run", lambda **options: 1 / 0)
    tracking = Tracking([_tracker("mlflow")], said.append)
    tracking.start("run", CONFIG)
    tracking.log(1, {"loss": 0.5})
    tracking.finish()
    assert tracking.failures == {"mlflow": 1} and len(said) == 1 and "failed in start" in said[0]
    assert [name for name, _, _ in calls()] == ["set_experiment"]


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Runs a recipe in a folder of its own, tracked in another; the notes of what TensorBoard's writer was given."""
    import types

    from small_project import answers, make_base, recipe, stage

    import etude

    (tmp_path / "recipes").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opened = []
    quiet = {name: lambda self, *_, **__: None for name in ("add_text", "add_scalar", "close")}
    writer = type("SummaryWriter", (), {"__init__": lambda self, log_dir: opened.append(log_dir), **quiet})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=writer))
    settings = stage(answers(tmp_path / "answers.jsonl"), steps=1, trackers=[{"kind": "tensorboard", "folder": "runs"}])
    file = recipe(tmp_path / "recipes" / "colours.yaml", make_base(tmp_path / "base"), {"s": settings})

    def run(*overrides, **how):
        return etude.run(file, overrides, project=tmp_path, **how).stages["s"].record

    return run, opened


def test_another_identity_is_another_run_beside_the_recipe(tracked, tmp_path):
    run, opened = tracked
    first, second = run("evaluate=null"), run("evaluate=null", "stages.s.train.learning_rate=1e-3")
    assert opened == [str(tmp_path / "recipes" / "runs" / f"colours-{record.identity[:8]}") for record in (first, second)]


def test_a_missing_library_is_said_before_anything_is_computed(tracked, monkeypatch):
    """Full tuning measures its parent before training: that would be lost."""
    from etude.compose.voice import Voice

    class Listener(Voice):
        def bar(self, label, total, unit):
            pytest.fail(f"{label} came first")

    run, _ = tracked
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EtudeError, match="tracker 'tensorboard' needs"):
        run("stages.s.adapt=full", voice=Listener())
