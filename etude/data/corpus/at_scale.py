"""The same steps on many machines: datatrove's executors run them, each task its share of the units and parts.

What a task does is what a process of one machine does, on the same parts, so the corpus is the same to the byte wherever it was prepared.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etude import catalog
from etude.data.corpus.clean import part_path
from etude.data.corpus.distinct import find_duplicates, parts
from etude.data.corpus.plan import Plan, read_plan
from etude.data.corpus.steps import Hands, clean_unit, here
from etude.data.rules.contract import needs
from etude.errors import DataError
from etude.lineage.durable import write_file

SLURM = {"partition": "", "time": "24:00:00"}
"""What a Slurm executor must be told; the partition has no default."""
HANDED = "handed.json"
"""In the working folder: the numbers of the jobs that Slurm was given."""


class Step:
    """One stage of the work as datatrove runs it: called with its rank and the number of tasks.

    Args:
        folder: the plan's working folder, which every machine sees.
    """

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        self.work(read_plan(Path(self.folder), catalog.TABLES), rank, world_size)
        return ()

    def work(self, plan: Plan, rank: int, world: int) -> None:
        """This task's share."""
        raise NotImplementedError


class Clean(Step):
    """Units, each read and cleaned by one task."""

    def work(self, plan: Plan, rank: int, world: int) -> None:
        submit = here(Hands(plan))
        for number in range(rank, len(plan.units), world):
            for one in clean_unit(plan, number, submit, lambda: False):
                if callable(one):
                    one()


class Distinct(Step):
    """Duplicates, by one task."""

    def work(self, plan: Plan, rank: int, world: int) -> None:
        find_duplicates(plan)


class Tokenise(Step):
    """Parts, each tokenised by one task."""

    def work(self, plan: Plan, rank: int, world: int) -> None:
        hands = Hands(plan)
        for part in parts(plan)[rank::world]:
            if not part_path(plan.folder, part.name)(".tokens.json").exists():
                hands.tokenise(part)


def execute(plan: Plan, on: str, workers: int, cluster: Sequence[str], say: Callable[[str], None]) -> bool:
    """Run the steps by an executor. False where they were handed to a queue: the same command, later, gathers the corpus.

    Args:
        on: `local`, `slurm` or `ray`.
        workers: tasks at once.
        cluster: `key=value` for the executor.

    Raises:
        DataError: datatrove is missing, or the executor is not told what it must know.
    """
    for name in ("units", "parts"):
        (plan.folder / name).mkdir(exist_ok=True)
    if on == "slurm" and _whole(plan):
        return True
    if on == "slurm" and shutil.which("sbatch") is None:
        raise DataError("there is no `sbatch` on this machine", "give the command where jobs are handed to Slurm, or use `--on local`")
    if on == "ray" and find_spec("ray") is None:
        raise DataError("`--on ray` needs the package ray", "install it with `pip install 'datatrove[ray]'`")
    if on == "slurm" and (jobs := _under_way(plan)):
        say(f"still under way: the jobs {', '.join(jobs)}; to hand it in anew, first end them with `scancel {' '.join(jobs)}`")
        return False
    steps = executors(plan, on, workers, _options(on, cluster))
    steps[-1].run()
    if on != "slurm":
        return True
    write_file(plan.folder / HANDED, json.dumps({"jobs": [str(step.job_id) for step in steps]}))
    say(f"handed to Slurm; when its jobs have ended, the same command gathers the corpus (state and logs: {plan.folder})")
    return False


def executors(plan: Plan, on: str, workers: int, options: dict[str, Any]) -> list[Any]:
    """Three executors, each of which waits for the one before it: clean, find duplicates, tokenise. To run the last is to run all."""
    made = needs("datatrove.executor", "datatrove", f"`--on {on}`")
    kinds = {"local": "LocalPipelineExecutor", "slurm": "SlurmPipelineExecutor", "ray": "RayPipelineExecutor"}
    steps: list[Any] = []
    for step, tasks in ((Clean(plan.folder), len(plan.units)), (Distinct(plan.folder), 1), (Tokenise(plan.folder), max(1, workers))):
        name = type(step).__name__.lower()
        # What is done is told by the files of units and parts: datatrove's own marks know ranks, and these change with the number of tasks.
        given: dict[str, Any] = {"tasks": tasks, "workers": min(workers, tasks), "skip_completed": False, **options}
        given["logging_dir"] = str(plan.folder / "logs" / name)
        if on == "slurm":
            # The same Python there as here, whatever brought it: a virtual environment, conda, a module.
            path = f"export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH"
            given |= {"job_name": f"{plan.recipe.name}-{name}", "env_command": path}
        steps.append(getattr(made, kinds[on])(pipeline=[step], depends=steps[-1] if steps else None, **given))
    return steps


def _under_way(plan: Plan) -> list[str]:
    """The jobs that were handed in before and have not ended, as far as Slurm tells."""
    if not (plan.folder / HANDED).exists():
        return []
    jobs = json.loads((plan.folder / HANDED).read_text())["jobs"]
    if shutil.which("squeue") is None:
        return jobs
    asked = subprocess.run(["squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}"], capture_output=True, text=True)
    return sorted(set(asked.stdout.split()))  # of jobs that ended long ago it knows nothing, and fails


def _options(on: str, cluster: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = dict(SLURM) if on == "slurm" else {}
    for one in cluster:
        key, equals, value = one.partition("=")
        if not equals:
            raise DataError(f"--cluster {one}: should be key=value", "for example `--cluster partition=cpu`")
        options[key] = int(value) if value.isdigit() else value
    if missing := [key for key, value in options.items() if value == ""]:
        raise DataError(f"--on {on} must be told {', '.join(missing)}", f"say `--cluster {missing[0]}=…`")
    return options


def _whole(plan: Plan) -> bool:
    """Whether every part is tokenised: then there is nothing left to hand out."""
    units = [plan.folder / "units" / f"{number:06d}.json" for number in range(len(plan.units))]
    if not all(unit.exists() for unit in units):
        return False
    counts = sum(json.loads(unit.read_text())["parts"] for unit in units)
    return len(list((plan.folder / "parts").glob("*.tokens.json"))) == counts
