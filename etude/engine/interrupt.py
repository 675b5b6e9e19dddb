"""Has the user asked to stop? The first signal lets the step finish and be saved, the second stops at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from etude.core import ranks


def _to_terminal(message: str) -> None:
    # Not print(): a handler may interrupt a print, and the stream's lock is not to be taken twice.
    os.write(2, f"\n{message}\n".encode())


class Interrupt:
    """While the block runs, SIGINT and SIGTERM set a flag that the loop asks for after every step.

    Python hands signals to the main thread only: in another thread the block changes nothing, and says so.

    Args:
        say: is given the messages, also from within a signal handler.
    """

    def __init__(self, say: Callable[[str], None] = _to_terminal):
        self._say = say
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def requested(self) -> bool:
        """Whether to stop now, save and leave. Every process must ask after the same step: all stop where one was asked."""
        return ranks.anywhere(self._asked)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            self._say("not in the main thread: a signal will not save first")
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not installed from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._say(f"{signal.Signals(number).name}: finishing this step and saving; once more to stop at once")
