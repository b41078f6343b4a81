"""Oban: one instance of the job system, and all that a host calls."""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from oban_actors import instance
from oban_actors.actors import (
    ChildSpec,
    Parent,
    Reason,
    Ref,
    Root,
    Runtime,
)
from oban_actors.actors.lifecycle import spawn
from oban_actors.actors.messages import Sentinel
from oban_actors.announcing import Announcer
from oban_actors.calls.async_jobs import AsyncJobCalls
from oban_actors.calls.async_queues import AsyncQueueCalls
from oban_actors.calls.draining import DrainCalls
from oban_actors.calls.inserts import InsertCalls
from oban_actors.calls.schema import SchemaCalls
from oban_actors.calls.tree import TreeCalls
from oban_actors.claim import Claim
from oban_actors.completing import Completion
from oban_actors.config import Config
from oban_actors.controlling import Controller
from oban_actors.engines import make_engine
from oban_actors.errors import AlreadyRegistered, ConfigError, NotStarted, StartFailed
from oban_actors.estate import Estate
from oban_actors.inserting import Inserter
from oban_actors.messages import Watch
from oban_actors.notifiers import make_publisher
from oban_actors.performing import Performer
from oban_actors.queues.parts import Parts
from oban_actors.queues.workforce import Workforce
from oban_actors.repo import Repo
from oban_actors.repo.connect import Source
from oban_actors.settings import load
from oban_actors.signals import WAKE_UP, StopFlag, stopping
from oban_actors.worker_registry import import_workers

logger = logging.getLogger("oban_actors")

START_TIMEOUT = 300.0
"""Seconds that a tree may take to start; its actors put slow work off."""


class Oban(SchemaCalls, InsertCalls, AsyncQueueCalls, AsyncJobCalls, DrainCalls, TreeCalls):
    """One instance: durable jobs on a database, staged by a supervised tree of actors.

    The object stays valid however often its tree is restarted. It can be used without a
    running tree for all that needs only the database: `migrate`, `insert`, `get_job`.

    Args:
        database: a URL (`postgresql+psycopg://...`, `sqlite:///jobs.db`), or the host's own
            SQLAlchemy `Engine` or `AsyncEngine`, whose way of connecting is used for a few
            connections of the tree's own.
        **options: see `Config.build`.

    Raises:
        ConfigError: an option is unknown or wrong; nothing has been started.

    """

    def __init__(self, database: Source, **options: Any) -> None:
        self.config = Config.build(**options)
        self.repo = Repo(database, self.config)
        self._engine = make_engine(self.repo.dialect, self.config.prefix)
        self._runtime = Runtime(self.config.clock)
        self._publisher = make_publisher(self.config, self._runtime.registry, self.repo.dialect)
        self._inserter = Inserter(self.config, self.repo, self._engine, self._publisher)
        self._controller = Controller(self.config, self.repo, self._engine, self._publisher)
        self._parts = self._make_parts()
        timers, workforce = self._runtime.timers, self._parts.workforce
        self._estate = Estate(self.config, self.repo, timers, workforce)
        self._lock = threading.RLock()
        self._root: Root | None = None
        self._pid = os.getpid()
        with _INSTANCES_LOCK:
            _INSTANCES.add(self)

    @classmethod
    def from_settings(
        cls, database: "Source | None" = None, *, config_file: str | None = None, **options: Any
    ) -> Self:
        """Make an instance of keyword arguments, else `OBAN_*` variables, else a TOML file.

        Args:
            database: as for the class; default `OBAN_DATABASE_URL`, else the file's
                `database_url`.
            config_file: the TOML file; default `OBAN_CONFIG`, else `oban.toml`, else the table
                `[tool.oban_actors]` of `pyproject.toml`, in the working directory.
            **options: see `Config.build`; they go before variables and file.

        Raises:
            ConfigError: as for the class; the message begins with the variable or file that the
                option came from. A file can't be read, or there is no database.

        """
        return load(database, config_file=config_file, **options).make(cls)

    def __repr__(self) -> str:
        return f"<Oban {self.config.name} on {self.repo.dialect}>"

    # Running

    def child_spec(
        self,
        *,
        id: Any = None,  # noqa: A002 (OTP's name for it)
        shutdown: float | None = None,
    ) -> ChildSpec:
        """Describe the instance as a child of the host's supervisor.

        Args:
            id: unique among its siblings; the instance's name by default.
            shutdown: seconds the whole tree has to end in; None lets each part's own count.

        Raises:
            ConfigError: a module of `imports` can't be imported.

        """
        self._import_workers()
        return ChildSpec(
            id=self.config.name if id is None else id,
            start=self._start_under,
            shutdown=shutdown,
            type="supervisor",
        )

    def start(self, on_exit: Callable[[Reason], None] | None = None) -> Self:
        """Start the tree on its own, under no supervisor of the host's.

        Args:
            on_exit: called with the reason when the tree has ended, for whatever reason.

        Returns:
            this object.

        Raises:
            StartFailed: a part did not start, or the instance runs already, be it under a
                supervisor of the host's.
            SchemaMissing: there is no jobs table; call `migrate`.
            ConfigError: a module of `imports` can't be imported, or the port of the health endpoint
                is taken.
            DatabaseError: the tables can't be looked at.
            ForkedError: this process is a fork of the one that has used this object.

        """
        self._refuse_fork()
        self._import_workers()
        with self._lock:
            if self._root is not None and self._root.alive:
                raise StartFailed(self.config.name, "it runs already")
            try:
                ref = self._spawn(None)
            except StartFailed as error:
                # What went wrong is plainer than where.
                cause = error.reason
                while isinstance(cause, StartFailed) and isinstance(cause.reason, StartFailed):
                    cause = cause.reason
                if isinstance(cause, StartFailed) and isinstance(cause.reason, ConfigError):
                    cause = cause.reason
                if isinstance(cause, Exception) and not isinstance(cause, StartFailed):
                    # It stands among the causes of `error`, which so can't be its own.
                    raise cause from cause.__cause__
                raise
            self._root = Root(ref, self._runtime, on_exit, owns_runtime=False)
        return self

    def stop(self, timeout: float | None = None) -> Reason | None:
        """End a tree that `start` started, in order, and close the connections.

        Args:
            timeout: seconds; the parts' own shutdown times bound it in any case.

        Returns:
            why it ended; None when it was never started.

        Raises:
            CallTimeout: it still runs after `timeout` seconds; it goes on ending.
            Deadlock: a job or an actor of the tree called it, whose own end it would wait for.
                `tell("oban", Exit())` ends the tree without waiting.

        """
        self._refuse_fork()
        root = self._root
        reason = None if root is None else root.stop(timeout)
        # Inserting without a tree opens connections too. Who has the lock starts one, or closes.
        if self._lock.acquire(blocking=False):
            try:
                if not self.alive:
                    self.repo.close()
            finally:
                self._lock.release()
        return reason

    def wait(self, timeout: float | None = None) -> Reason | None:
        """Wait until the tree that `start` started has ended.

        Args:
            timeout: seconds; None is without limit.

        Returns:
            why it ended, or None when it still runs.

        Raises:
            NotStarted: `start` was not called; a tree under a supervisor of the host's is that
                one's to wait for.
            Deadlock: as in `stop`, where there is no limit.

        """
        self._refuse_fork()
        if self._root is None:
            if self.alive:
                raise NotStarted(
                    f"{self.config.name} was not started by start, but runs under a supervisor "
                    "of the host's: wait for that one's end, or monitor whereis('oban')"
                )
            raise NotStarted(f"{self.config.name} was not started")
        return self._root.wait(timeout)

    def run(self) -> Reason:
        """Start the tree, and stop it in order when SIGTERM, SIGINT or SIGHUP comes.

        The only call that installs signal handlers; the host's are back when it returns. A second
        signal, but for SIGHUP, hurries: running jobs are told to end now, not after
        `shutdown_grace_period`. A SIGHUP that is ignored, as under `nohup`, stays so.

        Returns:
            why the tree ended.

        Raises:
            ValueError: it is not called in the main thread.

        """
        over = StopFlag()
        with stopping(self.config.name, over, self.hurry):
            self.start(on_exit=lambda _: over.set())
            # Another thread may get the signal, as it does right after SIGCONT; its handler runs
            # in this one all the same, but only once this one wakes.
            while not over.wait(WAKE_UP):
                pass
            return self.stop() or Reason("normal")

    def hurry(self) -> None:
        """Let a tree that ends, now or later, wait no longer for its jobs to end by themselves.

        They are told to end at once, as they else are when `shutdown_grace_period` is over. From
        any thread; a tree that is started anew is patient again.
        """
        self._refuse_fork()
        self._parts.workforce.hurry()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Its thread goes on, and nobody would end what it starts.
            await asyncio.wait([starting])
            if (error := starting.exception()) is None:
                await asyncio.to_thread(self.stop)
            else:
                logger.warning("%s, whose start was cancelled, failed to: %s", self, error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    # Helpers

    def _start_under(self, parent: Parent) -> Ref:
        self._refuse_fork()
        return self._spawn(parent)

    def _import_workers(self) -> None:
        # In this thread: one may lead back to a module that this thread is importing, and whose
        # lock the actor's would wait for while this one waits for the actor.
        import_workers(self.config.imports)

    def _spawn(self, parent: Parent | None) -> Ref:
        specs = instance.children(self._parts, self._publisher, self._inserter)
        try:
            ref = spawn(
                instance.Instance,
                (specs, self.config, self._estate),
                {},
                parent=parent,
                name="oban",
                runtime=self._runtime,
                timeout=START_TIMEOUT,
            )
        except StartFailed as error:
            taken = error.reason
            if isinstance(taken, AlreadyRegistered) and taken.name == "oban":
                raise StartFailed(self.config.name, self._runs_already()) from error
            raise
        if isinstance(ref, Sentinel):
            raise StartFailed(self.config.name, "init returned IGNORE")
        return ref

    def _runs_already(self) -> str:
        if self._root is not None and self._root.alive:
            return "it runs already, by start: stop it first, or let its supervisor alone start it"
        return "it runs already, under a supervisor of the host's, which alone starts and ends it"

    def _make_parts(self) -> Parts:
        repo = self.repo
        completion = Completion(repo.dialect, self.config.prefix, self._engine, repo.now)
        performer = Performer(self.config, watch=self._watch, completing=completion.about)
        workforce = Workforce(self.config, performer)
        announcer = Announcer(self.config, self._publisher)
        return Parts(
            self.config, self.repo, self._engine, workforce, completion.complete, announcer
        )

    def _watch(self, claim: Claim) -> None:
        self.tell(("foreman", claim.job.queue), Watch(claim))


_INSTANCES: "weakref.WeakSet[Oban]" = weakref.WeakSet()
_INSTANCES_LOCK = threading.Lock()


def _after_fork() -> None:
    global _INSTANCES_LOCK  # noqa: PLW0603 (any thread of the parent's may have held it)
    _INSTANCES_LOCK = threading.Lock()
    for one in list(_INSTANCES):
        one._move()  # noqa: SLF001 (its own module)


os.register_at_fork(after_in_child=_after_fork)


def instances() -> list[Oban]:
    """List the instances of this program, running or not, for whoever watches them all."""
    with _INSTANCES_LOCK:
        return list(_INSTANCES)
