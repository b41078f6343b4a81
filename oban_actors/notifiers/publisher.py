"""Notifications as part of a transaction: delivered at its commit, never on rollback."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import sqlalchemy as sa

from oban_actors import telemetry
from oban_actors.actors import Registry
from oban_actors.config import Config
from oban_actors.errors import ConfigError
from oban_actors.notifiers.delivery import Delivery
from oban_actors.notifiers.ledger import Ledger
from oban_actors.notifiers.wire import check_channel, encode
from oban_actors.repo.message import pyformat
from oban_actors.repo.times import Dialect

logger = logging.getLogger("oban_actors")

Payloads = Sequence[Mapping[str, Any]]

_KINDS: Mapping[Dialect, str] = {"postgresql": "postgres", "sqlite": "sqlite"}

_PG_NOTIFY = sa.text(
    "SELECT count(pg_notify(:channel, payload)) "
    "FROM json_array_elements_text(cast(:payloads AS json)) AS payload"
)
_PG_NOTIFY_TEXT = pyformat(str(_PG_NOTIFY))
_SQLITE_NOTIFY = sa.text(
    "INSERT INTO oban_actors_notifications (channel, payload) "
    "SELECT :channel, value FROM json_each(:payloads) ORDER BY key RETURNING id"
)
_SQLITE_NOTIFY_AGAIN = sa.text(
    "INSERT INTO oban_actors_notifications (channel, payload) "
    "SELECT :channel, new.value FROM json_each(:payloads) AS new WHERE NOT EXISTS ("
    "SELECT 1 FROM oban_actors_notifications AS old WHERE old.id > :mark "
    "AND old.channel = :channel AND old.payload = new.value) ORDER BY new.key"
)


class Publisher(Protocol):
    """How an instance's notifications are written."""

    def publish(self, connection: sa.Connection, channel: str, payloads: Payloads) -> None:
        """Send payloads as part of the connection's transaction, each one once.

        They are delivered when it commits and never if it, or the savepoint they were sent
        in, is rolled back. Telemetry: the span `oban.notifier.notify`. Mirrors
        `Oban.Notifier.notify/3`.

        Args:
            connection: in a transaction.
            channel: without the prefix.
            payloads: JSON objects of at most 7,999 bytes each; none is no error.

        Raises:
            WireError: a payload or the channel can't be sent; none was.
            sqlalchemy.exc.SQLAlchemyError: the database failed.

        """


def notifier_kind(config: Config, dialect: Dialect) -> str:
    """Say which notifier an instance on such a database has.

    Raises:
        ConfigError: the one asked for can't work there.

    """
    kind, native = config.notifier.kind, _KINDS[dialect]
    if kind not in ("auto", "isolated", native):
        raise ConfigError(
            f"invalid value for 'notifier.kind': expected one for {dialect}, got: {kind!r}"
        )
    return native if kind == "auto" else kind


def make_publisher(config: Config, registry: Registry, dialect: Dialect) -> Publisher:
    """Make the publisher that goes with an instance's notifier.

    Args:
        config: the instance's options.
        registry: the instance's, for listeners in this process.
        dialect: the database's kind.

    Raises:
        ConfigError: the notifier asked for can't work on this database.

    """
    match notifier_kind(config, dialect):
        case "postgres":
            return PostgresPublisher(config)
        case "sqlite":
            return SqlitePublisher(config)
        case _:
            return IsolatedPublisher(config, registry)


def sends_by_statement(publisher: Publisher) -> bool:
    """Whether what it publishes is what a statement with `pg_notify` would send."""
    return isinstance(publisher, PostgresPublisher)


def notify_statement(
    config: Config, channel: str, payloads: Payloads
) -> tuple[str, dict[str, Any]]:
    """Give what `PostgresPublisher` sends, as a statement of a message and its parameters.

    Whoever has sent it tells so by `note_sent`.
    """
    return _PG_NOTIFY_TEXT, _values(config, channel, _texts(config, channel, payloads))


def note_sent(config: Config, channel: str, payloads: Payloads) -> None:
    """Emit the span of payloads that a statement has sent by itself; it has no length."""
    with telemetry.span("oban.notifier.notify", _about(config, channel, payloads)):
        pass


class PostgresPublisher:
    """Sends with NOTIFY, all payloads in one statement. PostgreSQL sends equal ones once."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def publish(self, connection: sa.Connection, channel: str, payloads: Payloads) -> None:
        """See `Publisher`."""
        with _notifying(self._config, channel, payloads) as texts:
            if texts:
                connection.execute(_PG_NOTIFY, _values(self._config, channel, texts))


class SqlitePublisher:
    """Writes rows that the notifiers of all processes on the file read.

    There is one writer at a time and its ids go up, so the rows behind the first one that a
    transaction wrote are its own: that is how an equal payload is found, savepoints or not.
    """

    _MARK = "oban_first_notification"

    def __init__(self, config: Config) -> None:
        self._config = config

    def publish(self, connection: sa.Connection, channel: str, payloads: Payloads) -> None:
        """See `Publisher`."""
        with _notifying(self._config, channel, payloads) as texts:
            if not texts:
                return
            values: dict[str, Any] = {"channel": channel, "payloads": json.dumps(texts)}
            transaction, mark = connection.info.get(self._MARK, (None, 0))
            if transaction is not None and transaction is connection.get_transaction():
                connection.execute(_SQLITE_NOTIFY_AGAIN, values | {"mark": mark})
                return
            ids = connection.execute(_SQLITE_NOTIFY, values).scalars().all()
            connection.info[self._MARK] = (connection.get_transaction(), min(ids) - 1)


class IsolatedPublisher:
    """Tells the listeners of this process, right after the commit and in its thread.

    A connection of a host's that is none of SQLAlchemy's does not say when it commits: what is
    sent on it is not told, and passes find the jobs.
    """

    def __init__(self, config: Config, registry: Registry) -> None:
        self._config = config
        self._delivery = Delivery(config, registry)
        self._key = f"_oban_ledger_{id(self)}"

    def publish(self, connection: sa.Connection, channel: str, payloads: Payloads) -> None:
        """See `Publisher`."""
        with _notifying(self._config, channel, payloads) as texts:
            if not isinstance(connection, sa.Connection):
                logger.debug("a host's own connection does not say when it commits: %s", channel)
                return
            # It stands with the connection, so that it goes when that goes.
            ledger: Ledger | None = vars(connection).get(self._key)
            if ledger is None:
                ledger = vars(connection)[self._key] = Ledger(connection, self._delivery.deliver)
            for text in texts:
                ledger.add(channel, text)

    def publish_now(self, channel: str, payloads: Payloads) -> None:
        """Tell the listeners at once, in no transaction; errors as in `publish`."""
        with _notifying(self._config, channel, payloads) as texts:
            for text in texts:
                self._delivery.deliver(channel, text)


@contextmanager
def _notifying(config: Config, channel: str, payloads: Payloads) -> Iterator[list[str]]:
    """Give the payloads as they are written, equal ones once, within the telemetry span."""
    with telemetry.span("oban.notifier.notify", _about(config, channel, payloads)):
        yield _texts(config, channel, payloads)


def _about(config: Config, channel: str, payloads: Payloads) -> dict[str, Any]:
    return {"conf": config, "channel": channel, "payload": payloads}


def _texts(config: Config, channel: str, payloads: Payloads) -> list[str]:
    check_channel(config, channel)
    return list(dict.fromkeys(map(encode, payloads)))


def _values(config: Config, channel: str, texts: list[str]) -> dict[str, Any]:
    return {"channel": config.channel(channel), "payloads": json.dumps(texts)}
