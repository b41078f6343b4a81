"""Exit codes, and which error ends a command with which."""

import errno

from oban_actors.errors import (
    ConfigError,
    DatabaseUnavailable,
    SchemaMissing,
    SchemaTooNew,
    UndefinedTable,
)

DONE = 0
"""It was done."""

FAILED = 1
"""It failed, or was done only in part, or something was found that should not be."""

USAGE = 2
"""The command, an option or the configuration is wrong; nothing was done."""

UNREACHABLE = 3
"""Nobody answered: the database, or a node's health port."""

TABLES = 4
"""The tables are not there, too old or too new: `oban-actors migrate`."""

TAKEN = 5
"""Somebody else listens on the health port; who has it may end, as the node before this one."""

INTERRUPTED = 130
"""Ctrl-C, as a shell counts it."""

HOPELESS = (USAGE, TABLES)
"""What starting a process again won't mend."""


def exit_code(error: BaseException) -> int:
    """Say how a command ends that met this error."""
    if _port_is_taken(error):
        return TAKEN
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, DatabaseUnavailable):
        return UNREACHABLE
    if isinstance(error, SchemaMissing | SchemaTooNew | UndefinedTable):
        return TABLES
    return FAILED


def advice(error: BaseException) -> str:
    """Say what to do about an error, as the end of its line."""
    if isinstance(error, SchemaMissing | UndefinedTable):
        return " (oban-actors migrate makes the tables)"
    return ""


def _port_is_taken(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return True
        error = error.__cause__
    return False
