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
        # A stack, since SQLAlchemy names a savepoint only after it told of it.
        self._sizes: list[int] = []
        event.listen(connection, "rollback", self._rolled_back)
        event.listen(connection, "savepoint", self._saved)
        event.listen(connection, "rollback_savepoint", self._rolled_back_to)
        event.listen(connection, "release_savepoint", self._released)
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

    def _saved(self, _connection: sa.Connection, _name: str | None) -> None:
        self._sizes.append(len(self._entries))

    def _released(self, _connection: sa.Connection, _name: str, _context: object) -> None:
        if self._sizes:
            self._sizes.pop()

    def _rolled_back_to(self, _connection: sa.Connection, _name: str, _context: object) -> None:
        # A savepoint that it did not see is older than all that it keeps.
        size = self._sizes.pop() if self._sizes else 0
        self._entries = dict.fromkeys(list(self._entries)[:size])

    def _clear(self) -> None:
        self._entries.clear()
        self._sizes.clear()
