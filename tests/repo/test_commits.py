"""COMMITs that get no answer: what became of them is found out, and nothing is done twice."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from oban_actors.errors import CommitUnknown
from oban_actors.repo import Repo, commits, transactions
from oban_actors.repo.commits import Trace, leave
from oban_actors.repo.message import Send
from tests.repo.conftest import Notes
from tests.repo.gate import Gate
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

Admin = psycopg.Connection[Any]


def write(notes: Notes, connection: Connection, *, mark: bool = True) -> str:
    """Write a row, and leave the transaction's trace as engines do."""
    notes.add(connection, 1)
    if mark:
        found = connection.execute(text("SELECT cast(pg_current_xact_id() AS text)")).scalar()
        leave(connection, Trace(str(found), notes.stand))
    return f"try {notes.tries}"


def transaction(repo: Repo, notes: Notes, *, mark: bool = True) -> str:
    """Write a row in a transaction that is not done twice, and tell in which try."""
    return repo.transaction(lambda c: write(notes, c, mark=mark), idempotent=False)


def message(repo: Repo, notes: Notes) -> str:
    """Do so by a message whose COMMIT goes apart."""
    statements = [
        f"INSERT INTO {notes.table} VALUES (1)",
        "SELECT cast(pg_current_xact_id() AS text)",
    ]

    def work(connection: Connection, send: Send) -> str:
        notes.tries += 1
        found = send(statements, {})
        leave(connection, Trace(str(found[0][0][0]), notes.stand))
        return f"try {notes.tries}"

    return repo.opened(work)


Insert = Callable[[Repo, Notes], str]
EITHER = pytest.mark.parametrize("insert", [transaction, message], ids=lambda each: each.__name__)


def submit(
    threads: ThreadPoolExecutor, insert: Insert, repo: Repo, notes: Notes, gate: Gate
) -> "Future[str]":
    """Begin to insert, and come back when its COMMIT waits at the gate."""
    running = threads.submit(insert, repo, notes)
    wait_until(gate.waiting)
    return running


def lose_answer(proxy: TcpProxy, gate: Gate, admin: Admin) -> None:
    """Let a COMMIT that waits take place, and cut the way before its answer is through."""
    proxy.freeze()
    gate.open()
    wait_until(lambda: admin.execute("SELECT 1 FROM notes").fetchone())
    proxy.drop()
    proxy.thaw()


@EITHER
def test_lost_answer_of_a_commit(far: Repo, proxy: TcpProxy, admin: Admin, insert: Insert) -> None:
    """A COMMIT that took place, but whose answer was lost, is found out and not done twice."""
    notes = Notes(far)
    gate = Gate(notes.repo.config.prefix, notes.table, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, insert, far, notes, gate)
        lose_answer(proxy, gate, admin)

        assert running.result(60) == "try 1"

    assert notes.all() == [1]


def test_lost_end_of_the_question(
    far: Repo, proxy: TcpProxy, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has read what became of a COMMIT knows it, though the question's own is lost."""
    notes = Notes(far)
    gate = Gate(notes.repo.config.prefix, notes.table, admin)
    ask = commits.fate

    def ask_and_lose(connection: Connection, trace: Trace) -> commits.Fate:
        status = ask(connection, trace)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        admin.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
        return status

    monkeypatch.setattr(transactions, "fate", ask_and_lose)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, transaction, far, notes, gate)
        lose_answer(proxy, gate, admin)

        assert running.result(60) == "try 1"

    assert notes.all() == [1]


@EITHER
def test_commit_that_never_was(far: Repo, admin: Admin, insert: Insert) -> None:
    """A COMMIT that the server did not carry out is found out, and the work is done again."""
    notes = Notes(far)
    gate = Gate(notes.repo.config.prefix, notes.table, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, insert, far, notes, gate)
        first = gate.waiting()
        admin.execute("SELECT pg_terminate_backend(%s)", [first])
        wait_until(lambda: gate.waiting() not in (None, first))
        gate.open()

        assert running.result(60) == "try 2"

    assert notes.all() == [1]


def test_server_that_took_over(far: Repo, admin: Admin) -> None:
    """A server that never came as far as the transaction says so, and the work is done again."""
    notes = Notes(far)
    gate = Gate(notes.repo.config.prefix, notes.table, admin)

    def work(connection: Connection) -> None:
        notes.add(connection, 1)
        leave(connection, Trace(str(10**9), notes.stand))

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(lambda: far.transaction(work, idempotent=False))
        admin.execute("SELECT pg_terminate_backend(%s)", [wait_until(gate.waiting)])
        wait_until(lambda: notes.tries == 2)
        gate.open()
        running.result(60)

    assert notes.all() == [1]


def test_unknown_outcome(far: Repo, admin: Admin) -> None:
    """Where nobody can say what became of a COMMIT, that is the answer."""
    notes = Notes(far)
    gate = Gate(notes.repo.config.prefix, notes.table, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, partial(transaction, mark=False), far, notes, gate)
        admin.execute("SELECT pg_terminate_backend(%s)", [gate.waiting()])

        with pytest.raises(CommitUnknown):
            running.result(60)

    assert notes.tries == 1


def test_lost_answer_of_idempotent_work(far: Repo, proxy: TcpProxy, admin: Admin) -> None:
    """Work for which twice is once is simply run again."""
    notes = Notes(far)
    gate = Gate(notes.repo.config.prefix, notes.table, admin)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(far.transaction, lambda c: write(notes, c))
        wait_until(gate.waiting)
        lose_answer(proxy, gate, admin)

        assert running.result(60) == "try 2"
