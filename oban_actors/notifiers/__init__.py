"""How the parts of an instance, and the nodes of a cluster, hear of each other."""

from collections.abc import Sequence

from oban_actors.actors import ChildSpec, GenServer
from oban_actors.config import Config
from oban_actors.messages import Listen
from oban_actors.notifiers.isolated import IsolatedNotifier
from oban_actors.notifiers.postgres import PostgresNotifier
from oban_actors.notifiers.publisher import (
    Publisher,
    make_publisher,
    note_sent,
    notifier_kind,
    notify_statement,
    sends_by_statement,
)
from oban_actors.notifiers.sqlite import SqliteNotifier
from oban_actors.repo import Repo

__all__ = [
    "IsolatedNotifier",
    "PostgresNotifier",
    "Publisher",
    "SqliteNotifier",
    "listen",
    "make_publisher",
    "note_sent",
    "notifier_spec",
    "notify_statement",
    "sends_by_statement",
]


def notifier_spec(config: Config, repo: Repo) -> ChildSpec:
    """Describe the Notifier that an instance has; its name is `notifier`.

    Args:
        config: the instance's options.
        repo: the way to the database.

    Raises:
        ConfigError: the one asked for can't work on this database.

    """
    match notifier_kind(config, repo.dialect):
        case "postgres":
            return PostgresNotifier.child_spec(config, repo, name="notifier")
        case "sqlite":
            return SqliteNotifier.child_spec(config, repo, name="notifier")
        case _:
            return IsolatedNotifier.child_spec(config, repo, name="notifier")


def listen(actor: GenServer, channels: Sequence[str]) -> None:
    """Let an actor hear what comes on channels, from within it; it doesn't wait for anything.

    Subscribed first and told second: should there be no Notifier right now, the next one
    finds the subscription. Who has to know when it is heard asks the Notifier, with `Listen`.

    Args:
        actor: the one that calls this.
        channels: without the prefix.

    """
    for channel in channels:
        actor.runtime.registry.subscribe(channel, actor.actor_ref)
    actor.tell("notifier", Listen(tuple(channels), actor.actor_ref))
