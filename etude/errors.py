"""What went wrong, where, and what to do about it: the errors that a user is meant to read.

Every message names the file, line, row or key it is about and ends with a remedy. The command line prints
these without a traceback; anything else that escapes is a bug in etude and is shown as one.
"""


class EtudeError(Exception):
    """Something the user can mend.

    Args:
        message: what is wrong, with the place where it is.
        remedy: what to do about it, in the imperative.
    """

    def __init__(self, message: str, remedy: str = ""):
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}" if self.remedy else self.message


class RecipeError(EtudeError):
    """One or more mistakes in a recipe; `problems` holds one line each, `file:line:column: path: what`."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(EtudeError):
    """A row or a file of data that cannot be used as it is; the message names the file and the row."""


class ModelError(EtudeError):
    """A model that cannot be found, read or run here."""


class TrainingError(EtudeError):
    """A run that had to stop: what was seen, at which step, and what is safe on disk."""


class LineageError(EtudeError):
    """An artefact or record that is missing, damaged or in use."""
