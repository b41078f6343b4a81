"""An instance in a host program: started, stopped, supervised, and forked."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from oban_actors import (
    ConfigError,
    IsLeader,
    Job,
    NoProcess,
    NotStarted,
    Oban,
    SchemaMissing,
    ServerCrashed,
    Stage,
    StartFailed,
)
from oban_actors.actors import GenServer, Ref, Supervisor
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter, Tables, available, scheduled, wait_until_leader
from tests.support.waiting import wait_until

ACTORS = ["notifier", "queues", "peer", "pulse", "stager"]


def test_the_sample_of_the_readme(sqlite_url: str) -> None:
    """The tree under a host's supervisor, messaged directly, stages a due job."""
    oban = Oban(sqlite_url, name="Oban", queues={}, stager={"interval": 1.0, "limit": 5_000})
    oban.migrate()
    with Supervisor.start([oban.child_spec()], strategy="one_for_one") as root:
        job = oban.insert(
            Job.new(worker="reports.Weekly", args={"week": 47}, queue="reports", schedule_in=-5)
        )
        assert oban.ask("peer", IsLeader()) is True
        oban.whereis("stager").ask(Stage())
        found = oban.get_job(job.id or 0)
        assert found is not None
        assert found.state == "available"
        shown = str(root.tree())
    assert all(name in shown for name in ACTORS)


def test_the_tree_starts_in_order_and_shows_itself(start_oban: Starter, events: Recorder) -> None:
    """Notifier, Queues, Peer, Pulse, Stager; `init` is told once."""
    oban = start_oban()

    assert [node.id for node in oban.tree().children] == ACTORS
    assert events.wait_for("oban.supervisor.init").metadata["conf"] is oban.config


def test_an_object_outlives_its_tree(start_oban: Starter) -> None:
    """When the host's supervisor restarts the tree, the same object reaches the new one."""
    oban = start_oban.make()
    with Supervisor.start([oban.child_spec()]) as root:
        before = oban.whereis("stager")
        crash(oban.whereis("oban"))
        wait_until(lambda: oban.alive and not before.is_alive())
        wait_until_leader(oban)
        oban.insert(scheduled(-1))
        wait_until(lambda: start_oban.tables.count("available") == 1)
        child = root.tree().find("Oban")
        assert child is not None
        assert child.restarts == 1


def crash(ref: Ref) -> None:
    """Ask what nobody understands."""
    with pytest.raises(ServerCrashed):
        ref.ask(object(), timeout=30)


@pytest.mark.parametrize("name", ACTORS)
def test_any_actor_may_crash(start_oban: Starter, name: str) -> None:
    """Its successor serves under the same name, and jobs are staged again."""
    oban = start_oban.leading()
    before = oban.whereis(name)

    crash(before)

    wait_until(lambda: not before.is_alive() and oban.tell(name, object()))
    wait_until_leader(oban)
    oban.insert(scheduled(0.1))
    wait_until(lambda: start_oban.tables.count("available") == 1)


def test_start_stop_start_again(start_oban: Starter) -> None:
    """A context manager, and plain calls; stopping twice is no error."""
    oban = start_oban.make()
    with oban as same:
        assert same is oban
        assert oban.alive
        with pytest.raises(StartFailed, match="runs already"):
            oban.start()
    assert not oban.alive
    oban.start()
    wait_until_leader(oban)
    reason = oban.stop(30)
    assert reason is not None
    assert reason.kind == "shutdown"
    assert oban.stop() == reason
    assert oban.wait(1) == reason


def test_what_a_supervisor_runs_is_its_own(start_oban: Starter) -> None:
    """Neither started nor waited for a second time, and the error says whose it is."""
    oban = start_oban.make()
    with Supervisor.start([oban.child_spec()]):
        with pytest.raises(StartFailed, match="runs already, under a supervisor") as caught:
            oban.start()
        assert caught.value.child == oban.config.name
        with pytest.raises(NotStarted, match="runs under a supervisor of the host's: wait for"):
            oban.wait()
        with pytest.raises(StartFailed, match="runs already, under a supervisor"):
            Supervisor.start([oban.child_spec()])
        assert oban.ask("peer", IsLeader(), timeout=30) in {True, False}
    assert not oban.alive

    with oban, pytest.raises(StartFailed, match="runs already, by start"):
        Supervisor.start([oban.child_spec()])


def test_stop_closes_what_was_opened_after_the_tree(start_oban: Starter) -> None:
    """Inserting goes on without a tree, on connections that the next stop closes."""
    oban = start_oban.make()

    def connections() -> int:
        pool: Any = oban.repo.engine.pool
        return int(pool.checkedin())

    with oban:
        pass
    assert connections() == 0

    oban.insert(available())
    assert connections() == 1
    oban.stop()

    assert connections() == 0


def test_async_with(start_oban: Starter) -> None:
    """An asyncio host starts and stops it without blocking its loop."""
    oban = start_oban.make()

    async def host() -> bool:
        async with oban:
            return await asyncio.to_thread(oban.ask, "peer", IsLeader()) in {True, False}

    assert asyncio.run(host())
    assert not oban.alive


def test_what_needs_a_running_tree_says_so(start_oban: Starter) -> None:
    """Asking a tree that does not run is an error at once; inserting needs no tree."""
    oban = start_oban.make()

    with pytest.raises(NoProcess):
        oban.ask("stager", Stage())
    with pytest.raises(NotStarted):
        oban.wait()
    assert oban.tell("stager", Stage()) is False
    assert oban.insert(available()).id is not None
    assert oban.get_job(999_999) is None


def test_several_instances_in_one_process(start_oban: Starter) -> None:
    """Two names are two clusters: each has its own leader, tree and names."""
    first, second = start_oban.leading(name="first"), start_oban.leading(name="second")

    assert first.whereis("peer") is not second.whereis("peer")
    first.stop()
    assert second.ask("peer", IsLeader()) is True


def test_without_tables_it_does_not_start(database: Database) -> None:
    """The error says which call to make."""
    oban = Oban(database.url, prefix=database.prefix)

    with pytest.raises(SchemaMissing, match="migrate") as caught:
        oban.start()
    causes: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        assert error not in causes, "whoever follows the causes would never end"
        causes.append(error)
        error = error.__cause__
    with pytest.raises(StartFailed):
        Supervisor.start([oban.child_spec()])
    assert not oban.alive


def test_without_the_peers_table_it_lives_without_leadership(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning, no leader, no staging; the tree stays up."""
    oban = start_oban.make()
    start_oban.tables.execute("DROP TABLE {peers}")
    oban.start()

    assert oban.ask("peer", IsLeader(), timeout=30) is False
    wait_until(lambda: "leadership is disabled" in caplog.text)
    assert oban.ask("stager", Stage(), timeout=30).leader is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stager": {"intervall": 1}}, "unknown option 'intervall' for stager"),
        ({"stager": {"interval": 0}}, "stager.interval"),
        ({"stager": {"limit": 0}}, "stager.limit"),
        ({"nmae": "x"}, "unknown option 'nmae'"),
        ({"prefix": "a b"}, "prefix"),
        ({"queues": {"mailers": 0}}, "queues.mailers"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(
    sqlite_url: str, options: dict[str, object], message: str
) -> None:
    """The error names the option."""
    with pytest.raises(ConfigError, match=message):
        Oban(sqlite_url, **options)


def test_no_stager(start_oban: Starter) -> None:
    """An interval of None leaves the Stager out."""
    oban = start_oban(stager={"interval": None})

    assert [node.id for node in oban.tree().children] == ACTORS[:4]


class _Plugin(GenServer):
    def handle_call(self, message: object, sender: object) -> object:
        return "here"


def test_a_hosts_plugin_runs_in_the_tree(start_oban: Starter) -> None:
    """Plugins stand under a supervisor of their own, started last."""
    oban = start_oban(plugins=[_Plugin])

    plugins = oban.tree().find("plugins")
    assert plugins is not None
    assert [node.id for node in plugins.children] == ["_Plugin"]


def run_program(text: str, url: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a small host program as a user would."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), url],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


PROLOGUE = """
import sys, os, signal, threading
from oban_actors import ActorError, Oban, Job, IsLeader
oban = Oban(sys.argv[1], stager={"interval": 0.2})
oban.migrate()
"""


def test_a_host_that_never_stops_it_still_exits(sqlite: Database) -> None:
    """At interpreter exit the tree is stopped in order: leadership is given back."""
    done = run_program(
        PROLOGUE
        + textwrap.dedent("""
        oban.start()
        while not oban.ask("peer", IsLeader(), timeout=30): pass
        print("leads", flush=True)
        """),
        sqlite.url,
    )

    assert done.returncode == 0, done.stderr
    assert "leads" in done.stdout
    assert Tables(sqlite).execute("SELECT * FROM {peers}") == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_run_stops_on_a_signal(sqlite: Database, signum: signal.Signals) -> None:
    """`run` returns after an orderly stop, and the host's handlers are back."""
    program = PROLOGUE + textwrap.dedent("""
        before = signal.getsignal(signal.SIGTERM)
        def watch():
            leads = False
            while not leads:
                try: leads = oban.ask("peer", IsLeader(), timeout=30)
                except ActorError: pass
            print("runs", flush=True)
        threading.Thread(target=watch, daemon=True).start()
        reason = oban.run()
        assert signal.getsignal(signal.SIGTERM) is before
        print("ended:", reason)
        """)
    with subprocess.Popen(
        [sys.executable, "-c", program, sqlite.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert "ended: shutdown" in out
    assert Tables(sqlite).execute("SELECT * FROM {peers}") == []


def test_a_forked_child_is_told(sqlite: Database) -> None:
    """After a fork the child can't use the object, and hears why; the parent goes on."""
    done = run_program(
        PROLOGUE
        + textwrap.dedent("""
        from oban_actors import ForkedError
        with oban:
            pid = os.fork()
            if pid == 0:
                told = 0
                for call in (lambda: oban.insert(Job.new(worker="w", args={})),
                             lambda: oban.ask("peer", IsLeader()), oban.stop, oban.start):
                    try: call()
                    except ForkedError as error: told += "another Oban" in str(error)
                os._exit(0 if told == 4 else 1)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
            while not oban.ask("peer", IsLeader(), timeout=30): pass
            print("fine")
        """),
        sqlite.url,
    )

    assert done.returncode == 0, done.stderr
    assert "fine" in done.stdout


UNUSED = """
import os, sys, traceback
from oban_actors import ForkedError, IsLeader, Job, Oban

first = Oban(sys.argv[1], prefix={prefix!r})
first.migrate()
first.repo.close()
oban = Oban(sys.argv[1], prefix={prefix!r}, name="web", queues={{"alpha": 1}})
looked = Oban(sys.argv[1], prefix={prefix!r})
looked.repo.verify()
looked.repo.close()
identities = [oban.config.identity]

def child():
    inserted = oban.insert(Job.new(worker="w", queue="beta"))
    assert oban.get_job(inserted.id).worker == "w"
    with oban:
        oban.ask("peer", IsLeader(), timeout=30)
        assert [view.queue for view in oban.check_all_queues()] == ["alpha"]
    print(oban.config.identity, flush=True)
    try: looked.insert(Job.new(worker="w"))
    except ForkedError: pass
    else: raise AssertionError("it was used before")

for _ in range(2):
    pid = os.fork()
    if pid == 0:
        try: child()
        except BaseException: traceback.print_exc(); os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
oban.insert(Job.new(worker="w", queue="beta"))
oban.stop()
print(oban.config.identity)
"""


def test_an_instance_that_nobody_used_belongs_to_each_fork(database: Database) -> None:
    """As a web server has it that imports the program first: each child runs a node of its own."""
    done = run_program(UNUSED.format(prefix=database.prefix), database.url)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(set(done.stdout.split())) == 3
    assert Tables(database).count("available") == 3


def test_it_needs_no_greenlet(sqlite: Database) -> None:
    """What only an asyncio host of SQLAlchemy has is not imported."""
    done = run_program(
        "import sys; sys.modules['greenlet'] = None\n" + PROLOGUE + "print('fine')", sqlite.url
    )

    assert done.stdout == "fine\n", done.stderr


def test_it_imports_no_orm(sqlite: Database) -> None:
    """A program without sessions does not pay for the import of SQLAlchemy's ORM."""
    said = "import sys; print('sqlalchemy.orm' in sys.modules)"
    done = run_program(PROLOGUE + said, sqlite.url)

    assert done.stdout == "False\n", done.stderr


def test_a_repr_shows_no_password() -> None:
    """Neither the object nor its options tell a secret."""
    oban = Oban(
        "postgresql+psycopg://someone:geheim@localhost/none",
        notifier={"kind": "postgres", "listen_url": "postgresql://someone:geheim@localhost/none"},
    )

    assert "geheim" not in repr(oban) + repr(oban.config) + repr(oban.repo)


def test_leaves_nothing_behind(start_oban: Starter, tmp_path: Path) -> None:
    """After many starts and stops there are as many threads and open files as before."""
    oban = start_oban.make()

    def files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    for _ in range(2):
        with oban:
            wait_until_leader(oban)
    before = files()
    for _ in range(10):
        with oban:
            pass
    wait_until(lambda: files() <= before)
