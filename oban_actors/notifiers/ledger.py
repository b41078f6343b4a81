"""What a transaction has to tell once it is committed."""

from collections.abc import Callable
from functools import partial

import sqlalchemy as sa
from sqlalchemy import event


class Ledger:
    """Keeps a connection's notifications until its transaction commits, or drops them.

    Args:
        connection: whose transactions; it is watched as long as it lives.
        deliver: called with channel and text after a commit.

    """

    def __init__(self, connection: sa.Connection, deliver: Callable[[str, str], object]) -> None:
        self._deliver = deliver
        self._entries: dict[tuple[str, str], None] = {}
        self._sizes: dict[str, int] = {}
        event.listen(connection, "rollback", self._rolled_back)
        event.listen(connection, "savepoint", self._saved)
        event.listen(connection, "rollback_savepoint", self._rolled_back_to)
        # SQLAlchemy's own event comes before the commit: what it may still refuse must not
        # be told, and a listener that looks must find it.
        commit = connection._commit_impl  # noqa: SLF001 (there is no public word for "after")
        connection._commit_impl = partial(self._commit, commit)  # type: ignore[method-assign]  # noqa: SLF001 (as above)

    def add(self, channel: str, text: str) -> None:
        """Keep one; equal ones are one."""
        self._entries[channel, text] = None

    def _commit(self, commit: Callable[[], None]) -> None:
        commit()
        entries = list(self._entries)
        self._clear()
        for channel, text in entries:
            self._deliver(channel, text)

    def _rolled_back(self, _connection: sa.Connection) -> None:
        self._clear()

    def _saved(self, _connection: sa.Connection, name: str) -> None:
        self._sizes[name] = len(self._entries)

    def _rolled_back_to(self, _connection: sa.Connection, name: str, _context: object) -> None:
        # A savepoint that it did not see is older than all that it keeps.
        kept = list(self._entries)[: self._sizes.get(name, 0)]
        self._entries = dict.fromkeys(kept)

    def _clear(self) -> None:
        self._entries.clear()
        self._sizes.clear()
