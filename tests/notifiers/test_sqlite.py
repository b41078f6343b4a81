"""One file, several processes."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from oban_actors.messages import Reconnected, TryLock
from oban_actors.notifiers import SqliteNotifier
from oban_actors.notifiers.inotify import watch_file
from oban_actors.notifiers.select_mailbox import Readable, Tick
from oban_actors.notifiers.sqlite import Pace, _Sweep
from tests.notifiers import rig as rigs
from tests.notifiers.rig import Rig, crash_once, rig_for
from tests.support.databases import Database
from tests.support.waiting import wait_until

END = {"the": "end"}
INSERT = "INSERT INTO oban_actors_notifications (channel, payload)"
ROWS = "SELECT count(*) FROM oban_actors_notifications"


@pytest.fixture
def sqlite_rig(sqlite: Database) -> Iterator[Rig]:
    """Nodes on one file."""
    with rig_for(sqlite, "sqlite") as rig:
        yield rig


def path_of(rig: Rig) -> str:
    """The file."""
    path = make_url(rig.database.url).database
    assert path is not None
    return path


@contextmanager
def beside(rig: Rig) -> Iterator[sqlite3.Connection]:
    """Give a connection of somebody else's, in autocommit mode."""
    with closing(sqlite3.connect(path_of(rig), isolation_level=None)) as connection:
        yield connection


def with_watch(monkeypatch: pytest.MonkeyPatch, watch: Any) -> None:
    """Let the notifiers of this test watch the file in this way."""

    def spec(config: Any, repo: Any) -> Any:
        return SqliteNotifier.child_spec(config, repo, watch=watch, name="notifier")

    monkeypatch.setattr(rigs, "notifier_spec", spec)


def test_two_processes_hear_each_other(sqlite_rig: Rig) -> None:
    """What one sends the other gets, and what it answers comes back."""
    node = sqlite_rig.node()
    ear = node.hear("pong")
    command = [sys.executable, "-m", "tests.notifiers.echo", sqlite_rig.database.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        ear.wait_for({"n": "ready"})
        for n in range(20):
            node.publish("ping", {"n": n})
            ear.wait_for({"n": n})
        process.communicate("stop\n", timeout=30)
    assert process.returncode == 0
    assert [payload["n"] for payload in ear.payloads()] == ["ready", *range(20)]


def test_without_word_of_writes_it_looks_by_itself(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no inotify, or none left."""
    with_watch(monkeypatch, lambda _: None)
    node, other = sqlite_rig.node(node="a"), sqlite_rig.node(node="b")
    ear = node.hear("signal")
    assert node.notifier._watch is None

    for n in range(5):
        other.publish("signal", {"n": n})
        ear.wait_for({"n": n})


def test_word_of_a_write_that_never_comes(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The slow look finds what the kernel kept to itself, as some file systems do."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    with_watch(monkeypatch, lambda _: watch_file(str(elsewhere)))
    node = sqlite_rig.node()
    ear = node.hear("signal")

    with beside(sqlite_rig) as connection:
        connection.execute(f"{INSERT} VALUES ('signal', '{{}}')")

    ear.wait_for({})


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_word_of_writes(tmp_path: Path) -> None:
    """A write makes it readable, a file that is gone ends it, and none gives none."""
    path = tmp_path / "file"
    path.touch()
    watch = watch_file(str(path))
    assert watch is not None
    assert watch.drain()
    with path.open("a") as file:
        file.write("x")
    assert watch.drain()
    path.unlink()
    assert not watch.drain()
    watch.close()
    assert watch_file(str(path)) is None


def test_a_watched_file_that_is_gone(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It opens the database anew, and listeners are told."""
    decoy = tmp_path / "decoy"
    decoy.touch()
    files = iter([str(decoy)])
    with_watch(monkeypatch, lambda path: watch_file(next(files, path)))
    node = sqlite_rig.node()
    ear = node.hear("signal")

    decoy.unlink()

    ear.wait_for_reconnected()
    node.publish("signal", END)
    ear.wait_for(END)


@pytest.mark.parametrize("kept", [0, 2], ids=["all swept", "some swept"])
def test_a_gap_is_told(sqlite_rig: Rig, kept: int) -> None:
    """Rows that others deleted before they were read are missed, and known to be."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    with beside(sqlite_rig) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            f"{INSERT} VALUES ('signal', ?)",
            [(f'{{"n":{n}}}',) for n in range(5)],
        )
        connection.execute(
            "DELETE FROM oban_actors_notifications WHERE id <= "
            "(SELECT max(id) FROM oban_actors_notifications) - ?",
            [kept],
        )
        connection.execute("COMMIT")

    ear.wait_for_reconnected()
    node.publish("signal", END)
    ear.wait_for(END)
    assert ear.payloads() == [*({"n": n} for n in range(5 - kept, 5)), END]


def test_no_gap_where_there_is_none(sqlite_rig: Rig) -> None:
    """Neither a rolled back transaction nor a sweep of what was read makes one."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    with beside(sqlite_rig) as connection:
        for end in ("ROLLBACK", "COMMIT"):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"{INSERT} VALUES ('signal', '{{}}')")
            connection.execute(end)
        ear.wait_for({})
        connection.execute("DELETE FROM oban_actors_notifications")
    node.publish("signal", END)

    ear.wait_for(END)
    assert Reconnected() not in ear.messages
    assert ear.payloads() == [{}, END]


def test_another_file_in_its_place(sqlite_rig: Rig) -> None:
    """Ids that went back are those of a new table: told, and heard from then on."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    node.publish("signal", {"n": 1})
    ear.wait_for({"n": 1})
    with beside(sqlite_rig) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM oban_actors_notifications")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'oban_actors_notifications'")
        connection.execute("COMMIT")

    ear.wait_for_reconnected()
    node.publish("signal", END)
    ear.wait_for(END)


def test_old_rows_are_deleted(sqlite_rig: Rig) -> None:
    """Young ones stay, by the database's clock."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    node.publish("signal", {"n": 1}, {"n": 2}, END)
    ear.wait_for(END)
    with beside(sqlite_rig) as connection:
        old = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-61 seconds')"
        connection.execute(
            f"UPDATE oban_actors_notifications SET inserted_at = {old} WHERE payload LIKE '{{\"n%'"
        )
        node.tell(_Sweep())
        wait_until(lambda: connection.execute(ROWS).fetchone() == (1,))
    node.publish("signal", {"n": 3})

    ear.wait_for({"n": 3})
    assert Reconnected() not in ear.messages


def test_many_old_rows_are_deleted_at_once(sqlite_rig: Rig) -> None:
    """Batch after batch, however many were written meanwhile, and after a writer in the way."""
    node = sqlite_rig.node()
    with beside(sqlite_rig) as connection:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
            "INSERT INTO oban_actors_notifications (channel, payload, inserted_at) "
            "SELECT 'c', '{}', '2000' FROM n"
        )
        connection.execute("BEGIN IMMEDIATE")
        node.tell(_Sweep())
        assert node.ask(TryLock(7)) is False
        connection.execute("ROLLBACK")
        wait_until(lambda: connection.execute(ROWS).fetchone() == (0,))


def test_a_sweep_waits_for_nobody(sqlite_rig: Rig) -> None:
    """Another writer in the way puts it off, and nothing else."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    notifier = node.notifier
    node.publish("signal", {"n": 1})
    ear.wait_for({"n": 1})
    with beside(sqlite_rig) as connection:
        connection.execute("UPDATE oban_actors_notifications SET inserted_at = '2000'")
        connection.execute("BEGIN IMMEDIATE")
        node.tell(_Sweep())
        assert node.ask(TryLock(7)) is False
        connection.execute("ROLLBACK")
    node.publish("signal", END)

    ear.wait_for(END)
    assert node.notifier is notifier


@pytest.mark.parametrize("kind", [Readable, Tick, _Sweep])
def test_crashed_over_its_own_messages(sqlite_rig: Rig, kind: type) -> None:
    """They too are followed by a Notifier that has all listeners."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    crashed = crash_once(node, kind)

    node.tell(kind())

    assert crashed.wait(30)
    ear.wait_for_reconnected()
    node.publish("signal", END)
    ear.wait_for(END)


def test_a_table_that_is_not_there_yet(sqlite_rig: Rig) -> None:
    """It is no crash, nor one that goes; once it is there, listeners are told and hear."""
    node = sqlite_rig.node()
    ear = node.hear("signal")
    notifier = node.notifier
    node.publish("signal", {"n": 1})
    ear.wait_for({"n": 1})
    with beside(sqlite_rig) as connection:
        (schema,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'oban_actors_notifications'"
        ).fetchone()
        connection.execute("DROP TABLE oban_actors_notifications")
        wait_until(lambda: notifier._journal is None)
        connection.execute(schema)

    ear.wait_for_reconnected()
    node.publish("signal", END)
    ear.wait_for(END)
    assert node.notifier is notifier


def test_what_comes_while_it_is_busy(sqlite_rig: Rig) -> None:
    """A thousand commits in a row all come, in their order."""
    node, other = sqlite_rig.node(node="a"), sqlite_rig.node(node="b")
    ear = node.hear("signal")
    many = [{"n": n} for n in range(300)]

    for payload in many:
        other.publish("signal", payload)

    ear.wait_for(many[-1])
    assert ear.payloads() == many


def test_there_are_no_locks(sqlite_rig: Rig) -> None:
    """There is no session that one could be tied to."""
    assert sqlite_rig.node().ask(TryLock(7)) is False


def test_looks_grow_apart() -> None:
    """Close together after word of a write, then slow; without word of writes never slow."""
    watched = Pace(watched=True)
    delays = [watched.delay() for _ in range(Pace.CLOSE + 2)]
    assert delays[0] <= 0.001
    assert delays == sorted(delays)
    assert delays[-1] == Pace.SLOW
    watched.touched()
    assert watched.delay() == delays[0]

    alone = Pace(watched=False)
    delays = [alone.delay() for _ in range(30)]
    assert (delays[0], delays[-1]) == (0.01, 0.1)
    alone.touched()
    assert alone.delay() == 0.01


def test_writes_that_bring_no_news_are_followed_less_closely() -> None:
    """Up to some milliseconds, and only for as long as one follows on the other."""

    def after_a_write(pace: Pace) -> float:
        pace.touched()
        return pace.delay()

    pace = Pace(watched=True, step=Pace.CLOSE)
    assert [after_a_write(pace) for _ in range(6)] == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008]

    pace.found()
    assert after_a_write(pace) == 0.002
    for _ in range(Pace.SOON + 1):
        pace.delay()
    assert after_a_write(pace) == 0.001
