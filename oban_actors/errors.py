"""Every error that a caller of this library may want to catch."""

from collections.abc import Callable

from sqlalchemy.exc import DontWrapMixin

from oban_actors.actors.errors import (
    ActorError,
    AlreadyRegistered,
    CallTimeout,
    Deadlock,
    NoProcess,
    ServerCrashed,
    StartFailed,
    UnexpectedMessage,
)

__all__ = [
    "ActorError",
    "AlreadyRegistered",
    "CallTimeout",
    "ClaimLost",
    "CodecError",
    "CommitUnknown",
    "ConfigError",
    "DatabaseError",
    "DatabaseUnavailable",
    "Deadlock",
    "ForkedError",
    "InvalidJob",
    "JobLocked",
    "JobNotFound",
    "LockTimeout",
    "NoProcess",
    "NotRunning",
    "NotStarted",
    "ObanError",
    "PerformError",
    "ProcessDied",
    "RedactedError",
    "RemoteFailure",
    "SchemaMissing",
    "SchemaTooNew",
    "ServerCrashed",
    "StartFailed",
    "StatementTimeout",
    "TransientError",
    "UndefinedTable",
    "UnexpectedMessage",
    "UnfitTransaction",
    "WireError",
]


class ObanError(Exception):
    """Something that concerns jobs, their database or an instance went wrong."""


class ConfigError(ObanError, ValueError, DontWrapMixin):
    """An option is unknown or its value can't be used.

    Where a statement of a host's own has such a value, SQLAlchemy raises it as it is.
    """


class InvalidJob(ObanError, ValueError):
    """A job has a value that must not reach the table."""


class JobNotFound(ObanError):
    """There is no job of this id.

    Attributes:
        id: the one that was asked for.

    """

    def __init__(self, message: str, *, id: int) -> None:  # noqa: A002 (the column's name)
        self.id = id
        super().__init__(message)


class JobLocked(ObanError):
    """Somebody else's transaction has a job locked and did not end in time.

    Attributes:
        ids: those that were locked.
        changed: how many other jobs the call had changed by then, for good.

    """

    def __init__(self, message: str, *, ids: tuple[int, ...] = (), changed: int = 0) -> None:
        self.ids = ids
        self.changed = changed
        super().__init__(message)


class UnfitTransaction(ObanError):
    """What is asked for can't be done in the host's transaction as it is."""


class WireError(ObanError, ValueError):
    """A payload or a channel can't be sent, or a payload that came can't be read."""


class NotStarted(ObanError):
    """The instance has to run for this, and it does not."""


class NotRunning(ObanError):
    """The job has to run here and now for this, and it does not."""


class ClaimLost(ObanError):
    """The job is no longer this run's: it was cancelled, given to somebody else, or has ended."""


class PerformError(ObanError):
    """A job did not end well although its worker raised nothing.

    It was cancelled, or completed in a transaction that was not committed.
    """


class RemoteFailure(ObanError):
    """A worker failed in another process; the text is what it said there."""


class RedactedError(RemoteFailure):
    """A worker that declares `redact` failed; the text is its error's, without what is redacted.

    Attributes:
        kind: the name of the class of its error.
        described: the whole text, as it stands in the row.
        original: gives its error itself, which may hold and show all that is secret.

    """

    def __init__(self, described: str, *, kind: str, original: Callable[[], BaseException]) -> None:
        self.kind = kind
        self.described = described
        self.original = original
        super().__init__(described)


class CodecError(ObanError):
    """The codec of a worker could not encode or decode the args of a job.

    The codec's own error is not shown, nor kept: it may hold them.
    """


class ProcessDied(ObanError):
    """The process that ran a job ended before the job did."""


class ForkedError(ObanError):
    """The parent process has used the instance: a forked child has to make its own."""


class DatabaseError(ObanError):
    """The database refused, failed or was not there; the driver's error is the `__cause__`.

    Attributes:
        sqlstate: PostgreSQL's five-character code, None where there is none.

    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class DatabaseUnavailable(DatabaseError):
    """There was no connection, it broke, or it stayed silent beyond its deadline."""


class TransientError(DatabaseError):
    """Others were in the way (serialization, deadlock, lock, busy file), also in each retry."""


class LockTimeout(TransientError):
    """Others kept a lock for all the time that it may be waited for; it is not tried again.

    Who waited has kept a connection meanwhile, from which others would have been served.
    """


class StatementTimeout(DatabaseError):
    """A statement took longer than it may and was cancelled."""


class UndefinedTable(DatabaseError):
    """A statement named a table that is not there."""


class CommitUnknown(DatabaseError):
    """A COMMIT got no answer, and whether it took place can't be found out.

    So it is where the server crashed just then and what was written is not in the tables: it was
    lost, most likely, but may as well have been deleted since.

    Attributes:
        transaction_id: PostgreSQL's id of that transaction, None where it isn't known.

    """

    def __init__(
        self, message: str, *, sqlstate: str | None = None, transaction_id: str | None = None
    ) -> None:
        self.transaction_id = transaction_id
        super().__init__(message, sqlstate=sqlstate)


class SchemaMissing(DatabaseError):
    """The tables are not there, or older than what this library needs."""


class SchemaTooNew(DatabaseError):
    """The tables were made by a newer version than this library knows.

    Attributes:
        found: the version of the tables, None where it isn't given.
        known: the newest version that this library knows, None where it isn't given.

    """

    def __init__(self, message: str, *, found: int | None = None, known: int | None = None) -> None:
        self.found = found
        self.known = known
        super().__init__(message)
