"""That a case sees what it is to see: jobs lost, run twice, and words not said."""

from dataclasses import replace
from pathlib import Path

import pytest

from oban_actors import Job
from tests.chaos import scene, table
from tests.chaos.cases import Case, Row, no_node, play
from tests.chaos.scene import CRASHED, LIMIT, Scene
from tests.support.databases import Database
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def _played(tmp_path: Path, sqlite: Database, case: Case) -> Row:
    return play(case, Scene(sqlite, tmp_path))


def test_a_calm_case_has_nothing_to_say(tmp_path: Path, sqlite: Database) -> None:
    """Without a fault all jobs run once, and nothing is logged that complains."""

    def calm(scene: Scene) -> None:
        with scene.strike():
            pass

    row = _played(tmp_path, sqlite, Case("calm", "sqlite", "none", calm, few=0))

    assert row.failures == ()
    assert row.again == 0
    assert row.jobs > 10


def test_what_is_wrong_is_seen(tmp_path: Path, sqlite: Database) -> None:
    """A job that was deleted, one that ran again, one that never ran, a node that crashed."""
    completed = "SELECT id FROM {jobs} WHERE state = 'completed' AND attempt = 1 LIMIT 1"

    def vandal(scene: Scene) -> None:
        scene.wait_for_runs(5)
        scene.load.stop()
        waiting = scene.tables.execute(
            "SELECT id FROM {jobs} WHERE state IN ('available', 'scheduled') ORDER BY id LIMIT 2"
        )
        (gone,), (never,) = waiting
        scene.tables.execute("DELETE FROM {jobs} WHERE id = :id", id=gone)
        scene.tables.execute("UPDATE {jobs} SET state = 'completed' WHERE id = :id", id=never)
        done = wait_until(lambda: scene.tables.execute(completed))[0][0]
        scene.oban.insert(Job.new({}, worker="chaos.nobody", queue="alpha", max_attempts=1))
        before = scene.begun[done]
        scene.tables.execute(
            "UPDATE {jobs} SET state = 'available', completed_at = NULL WHERE id = :id", id=done
        )
        scene.nodes[0].stderr.write_text("Traceback")
        assert before == 1

    row = _played(tmp_path, sqlite, Case("vandal", "sqlite", "all", vandal, few=0))

    words = " ".join(row.failures)
    assert "jobs were lost" in words
    assert "1 jobs ended that never ran" in words
    assert "1 runs again, at most 0 are promised" in words
    assert "crashed: ['Traceback']" in words


@pytest.mark.parametrize(
    "said",
    [
        "Oban.stager crashed over Stage()",
        "child Oban.peer ended: crashed: ValueError('x')",
        "Oban.notifier ended by a fault in what runs it",
        "Oban.queues gives up: more than 3 restarts within 5 seconds, the last of child alpha",
        "<Process Oban.peer> did not end and is abandoned; it hangs in",
    ],
)
def test_what_the_tree_says_of_a_crash_counts(said: str) -> None:
    """Whatever ends an actor against its will."""
    assert CRASHED.search(said)


def test_what_is_quoted_is_no_crash() -> None:
    """A pooler says so of its server, and a notifier tells why it can't listen."""
    quoted = "the notifier can't listen and will try again: FATAL: server conn crashed? closed"
    assert not CRASHED.search(quoted)


def test_what_is_not_said_fails(
    tmp_path: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case waits for the words, and not for ever."""
    told = Scene.told
    monkeypatch.setattr(Scene, "told", lambda self, words: told(self, words, timeout=0.1))

    def mute(_: Scene) -> None:
        pass

    with pytest.raises(AssertionError, match="a node says 'something'"):
        _played(
            tmp_path,
            sqlite,
            Case("mute", "sqlite", "none", mute, told=("something",), stage=no_node),
        )


def test_lost_slots_are_seen(
    tmp_path: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Throughput is what the slots allow, so that it falls with their number."""
    monkeypatch.setattr(scene, "WINDOWS", (1, 2.0))
    monkeypatch.setattr(scene, "TRIES", 1)
    monkeypatch.setattr(scene, "BACKLOG", dict.fromkeys((True, False), 4 * LIMIT))

    def taken(scene: Scene) -> None:
        with scene.strike():
            scene.oban.scale_queue("alpha", limit=LIMIT // 2)

    row = play(Case("taken", "sqlite", "half the slots", taken), Scene(sqlite, tmp_path, long=True))

    assert row.before is not None
    assert row.after is not None
    assert row.after * scene.MEASURED < LIMIT < row.before * scene.MEASURED < 2 * LIMIT
    assert any("throughput" in failure for failure in row.failures)


def test_the_table_has_its_place(tmp_path: Path) -> None:
    """A row replaces the one of the same fault, and nothing else changes."""
    page = tmp_path / "page.md"
    page.write_text(f"above\n{table.BEGIN}\n{table.END}\nbelow\n")
    case = Case("kill", "sqlite", "kill -9", lambda _: None)
    row = Row(case, ("it is gone",), 700, 3, 210, 0.25, 39.26, 38.9, ())

    table.write([row, replace(row, case=replace(case, fault="other", kind="postgresql"))], page)
    table.write([replace(row, standstill=7.0)], page)
    table.write([row], page)

    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert (
        text.count(
            "| SQLite: kill -9 | `it is gone` | 700 | 3 of at most 210 | 0.2 s | 39.3, then 38.9 |"
        )
        == 1
    )
    assert text.count("| other |") == text.count("| fault |") == 1
    assert "7.0 s" not in text
