import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from etude.engine.interrupt import Interrupt

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_the_second_stops(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    said: list[str] = []
    with Interrupt(said.append) as interrupt:
        assert not interrupt.requested()
        os.kill(os.getpid(), number)
        assert interrupt.requested()
        assert said == [f"{number.name}: finishing this step and saving; once more to stop at once"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert {n: signal.getsignal(n) for n in before} == before


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), Interrupt(print):
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before


def test_off_the_main_thread_it_changes_nothing_and_says_so():
    before, said, asked = signal.getsignal(signal.SIGINT), [], []

    def work():
        with Interrupt(said.append) as interrupt:
            asked.append(interrupt.requested())
            assert signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False] and said == ["not in the main thread: a signal will not save first"]


LOOP = """
import time
from etude.engine.interrupt import Interrupt
with Interrupt() as interrupt:
    print("ready", flush=True)
    while not interrupt.requested():
        time.sleep(0.01)
print("saved", flush=True)
"""


def test_a_real_process_saves_and_leaves():
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "saved\n", "\nSIGTERM: finishing this step and saving; once more to stop at once\n")


TWO = """
import os, signal, sys, torch
from pathlib import Path
from etude.engine.interrupt import Interrupt

folder = Path(sys.argv[1])
rank = 0 if os.fork() else 1
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
with Interrupt(lambda message: None) as interrupt:
    assert not interrupt.requested()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupt.requested()
(folder / f"passed{rank}").touch()
torch.distributed.destroy_process_group()
"""


def test_all_processes_stop_where_one_was_asked(tmp_path):
    subprocess.run([sys.executable, "-c", TWO, str(tmp_path)], cwd=ROOT, check=True, timeout=100)
    assert (tmp_path / "passed0").exists() and (tmp_path / "passed1").exists()
