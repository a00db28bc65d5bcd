"""The exceptions that people see. The message of each is a sentence that says what is wrong and what to do.

This module imports nothing of the project, so that every room can raise and catch them.
"""


class _ToldInASentence(RuntimeError):
    """A notebook shows the message alone, as the command line does: the way to it tells nobody what to do."""

    def _render_traceback_(self) -> list[str]:  # what IPython asks for
        return [f"{type(self).__name__}: {self}"]


class Refusal(_ToldInASentence):
    """Something cannot be done; the message is one sentence that says what and what to do."""


class ContractViolation(ValueError):
    """Rows that a table's contract does not allow. One sentence: table, column, values, way out."""


class WriteBusy(RuntimeError):
    """Somebody else kept writing to the same table for too long. One sentence: table, cause, way out."""


class StoreUnavailable(_ToldInASentence):
    """A store cannot be reached or used. One sentence: which store, its URL without password, what to do."""


def missing_table(asset: str) -> StoreUnavailable:
    """The error to raise when an operation needs a table that no run has made yet."""
    return StoreUnavailable(
        f"The table of {asset} does not exist yet: materialize it, for example with 'ml-assets refresh'."
    )


class StoreBusy(StoreUnavailable):
    """A store that only one process may open is held by another one."""


class TableUnavailable(StoreUnavailable):
    """A table cannot be read or written. Table, cause without password, what to do."""


class DamagedCollection(StoreUnavailable):
    """A collection does not hold what was written to it. Which one, why, and what to do."""


class LakeDamaged(RuntimeError):
    """Tables of the lake do not agree with themselves. One sentence: tables, what was found, way out."""


class ServiceError(RuntimeError):
    """An embedded server cannot be had; the message is one sentence that says why and what to do."""


class EmbedderError(Refusal):
    """The embedder cannot be used. The message is one sentence that says what to do."""


class ExtensionMissing(Refusal):
    """An extension of DuckDB is not installed. One sentence: which, and the package that has it."""


class IntakeBusy(Refusal):
    """Another process takes in the same stream."""


class NotTakenIn(Refusal):
    """A file that the ledger does not know. One sentence: which, and what to do."""


class SourceError(Refusal):
    """A source's file is not one. One sentence: which file, what is wrong, the way out.

    Args:
        stream: that the file names.
    """

    def __init__(self, told: str, stream: str | None = None) -> None:
        super().__init__(told)
        self.stream = stream
