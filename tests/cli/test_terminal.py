"""What a run looks like where nobody watches: lines in a file instead of bars."""

import io

from rich.console import Console

from etude.cli import terminal


def test_a_file_gets_lines_now_and_then_and_one_at_the_end(monkeypatch):
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(seconds)))
    written = io.StringIO()
    voice = terminal.TerminalVoice(Console(file=written, highlight=False, soft_wrap=True))
    with voice.bar("training mine", 4, "steps") as advance:
        for step in range(1, 5):
            advance(1, f"loss {1 / step:.2f}")
    assert written.getvalue().splitlines() == [
        "  training mine: 2 of 4 steps, loss 0.50, 20 s left",
        "  training mine: 4 steps in 50 s",
    ]


def test_what_was_done_in_another_sitting_is_no_speed(monkeypatch):
    """A resumed run reports all steps so far with its first one; ten seconds a step are left for each of the others."""
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(seconds)))
    written = io.StringIO()
    voice = terminal.TerminalVoice(Console(file=written, highlight=False, soft_wrap=True))
    with voice.bar("training mine", 100, "steps") as advance:
        for steps in (91, 1, 1):
            advance(steps, "")
    assert written.getvalue().splitlines()[0] == "  training mine: 92 of 100 steps, 80 s left"
