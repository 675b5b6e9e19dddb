"""What do transformers' own log lines become while a model is read? Notes for the user, instead of chatter on the terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

# Written for every GGUF file or missing kernel, or told better by us from the loading report itself.
_CHATTER = ("LOAD REPORT", "Dequantizing the whole model", "is falling back to its reference PyTorch implementation")


class _Collector(logging.Handler):
    """Keeps the first line of each warning."""

    def __init__(self, notes: list[str]):
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not any(known in message for known in _CHATTER):
            note = f"transformers: {message.strip().splitlines()[0]}"
            if note not in self.notes:
                self.notes.append(note)


@contextmanager
def quiet(notes: list[str]) -> Iterator[None]:
    """No progress bars and no log lines from transformers; its warnings are appended to `notes`."""
    logger, collector = transformers_logging.get_logger("transformers"), _Collector(notes)
    handlers, propagate, level = list[logging.Handler](logger.handlers), logger.propagate, logger.level
    bars = transformers_logging.is_progress_bar_enabled()
    logger.handlers, logger.propagate = list[logging.Handler]([collector]), False
    logger.setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
