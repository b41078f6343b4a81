"""Plugin: work that a tree does by itself, again and again, beside its jobs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, TypeVar

from sqlalchemy import Connection

from oban_actors import telemetry
from oban_actors.actors import ChildSpec
from oban_actors.config import Config
from oban_actors.engines import JobEngine
from oban_actors.errors import ConfigError, DatabaseError
from oban_actors.inserting import Inserter
from oban_actors.messages import Perform
from oban_actors.notifiers import Publisher
from oban_actors.peers import Trouble, duty_idle, holds_lease
from oban_actors.repo import Repo
from oban_actors.validation import OPTIONS

T = TypeVar("T")
Duty = Literal["shared", "own"]


class LeadershipLost(Exception):
    """A shared duty's transaction found that this node no longer leads."""


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plugin is given of the instance that it works for.

    Attributes:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        publisher: how notifications are written in a transaction.
        inserter: how jobs are inserted, with the notifications that go with them.

    """

    config: Config
    repo: Repo
    engine: JobEngine
    publisher: Publisher
    inserter: Inserter


@dataclass(frozen=True, slots=True)
class PluginRun:
    """One run of a plugin: what it works with.

    Attributes:
        context: the instance's parts.
        duty: the plugin's.
        leader: whether this node leads, as the Peer said when the run began.

    """

    context: PluginContext
    duty: Duty
    leader: bool

    def now(self) -> datetime | None:
        """Give the time of a virtual clock; None where the database's own clock decides."""
        return self.context.repo.now()

    def transaction(self, work: Callable[[Connection], T], **terms: Any) -> T:
        """Run `work` in a transaction of its own, as `Repo.transaction` does.

        That of a shared duty first reads this node's lease, and holds it until the end, so what
        it does is done by the leader however late it commits.

        Args:
            work: gets the connection.
            **terms: see `Repo.transaction`.

        Raises:
            DatabaseError: the database failed.
            LeadershipLost: this node no longer leads; it ends the run, and is no error of it.

        """
        if self.duty == "own":
            return self.context.repo.transaction(work, **terms)

        def fenced(connection: Connection) -> T:
            if not holds_lease(connection, self.context.config, self.now()):
                raise LeadershipLost
            return work(connection)

        terms.setdefault("idle_timeout", duty_idle(self.context.config))
        return self.context.repo.transaction(fenced, **terms)

    def told(
        self,
        event: str,
        work: Callable[[Connection], T],
        jobs: Callable[[T], Sequence[Any]],
        **terms: Any,
    ) -> T:
        """Run `work` in a transaction, and the whole in a span, told once it is committed.

        Args:
            event: the span's name, such as `oban.engine.prune_jobs`.
            work: gets the connection.
            jobs: which jobs it changed, of what it returned.
            **terms: see `Repo.transaction`.

        Raises:
            DatabaseError: as for `transaction`.
            LeadershipLost: likewise.

        """
        about = {"conf": self.context.config, "engine": type(self.context.engine), "jobs": ()}
        with telemetry.span(event, about) as span:
            try:
                done = self.transaction(work, **terms)
            except LeadershipLost as error:
                lost = error
            else:
                span.set(jobs=jobs(done))
                return done
        raise lost


@dataclass(frozen=True, slots=True)
class PluginResult:
    """What one run of a plugin came to; the answer to whoever asked for it.

    Attributes:
        leader: whether this node led.
        extra: what the plugin says of the run; also in its event's metadata.
        error: why it failed, None when it did not.

    """

    leader: bool
    extra: Mapping[str, Any] = field(default_factory=dict)
    error: DatabaseError | None = field(default=None, compare=False)


class Plugin(ABC):
    """What a host gives as one of `plugins`: options, and what is done at each run.

    A plugin of the host's is a dataclass of options with `perform`. An actor of its own runs it,
    named `("plugin", plugin.id)`, under the supervisor of the plugins: every `interval` seconds,
    or when it is told or asked `Perform()`. Each run is a span `oban.plugin`. A database that
    fails is logged, told and tried again; any other error is a bug and crashes the actor, which
    is then started anew. Mirrors `Oban.Plugin`.

    Attributes:
        interval: seconds between two runs.
        duty: `shared`: only the leader of the cluster runs it, be it in Python or in Elixir,
            and `run.transaction` makes sure of that; `own`: every node runs it, so that what it
            does must be safe to be done by several.
        message: what the actor is told to make it run.
        nothing: what its event says of a run that did nothing, as this node does not lead or the
            database failed: what `perform` returns otherwise, as none. Default: nothing.

    """

    interval: float = 60.0
    duty: ClassVar[Duty] = "shared"
    message: ClassVar[type[Any]] = Perform
    nothing: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse options that nobody would look at, by name where they are unknown."""
        if is_dataclass(cls):
            known = [each.name for each in fields(cls) if each.init]
            _refuse_shadows(cls, known)
            OPTIONS.known(options, known, owner=cls.__name__)
        elif (args or options) and cls.__init__ is object.__init__:
            # What has no `__init__` takes whatever it is given, and drops it.
            raise ConfigError(f"{cls.__name__} takes no options: {_DECORATE}")
        return super().__new__(cls)

    @property
    def id(self) -> str:
        """Its name within the instance, which has one of each; the class's by default."""
        return type(self).__name__.lower()

    def validate(self) -> None:  # noqa: B027 (a hook; most have nothing to check here)
        """Check the options, before anything starts.

        Raises:
            ValueError: one can't be used; the instance is not made then.

        """

    def validate_in(self, config: Config) -> None:  # noqa: B027 (as above)
        """Check the options beside the instance's own, before anything starts.

        Args:
            config: the instance's options, all checked.

        Raises:
            ValueError: they don't fit together; the instance is not made then.

        """

    def fresh(self) -> Self:
        """Give what an actor runs from its start on: itself, or a copy.

        A plugin that remembers something between its runs gives a copy with nothing in it, so that
        a crash takes it away, and no two actors share it.
        """
        return self

    @abstractmethod
    def perform(self, run: PluginRun) -> Mapping[str, Any] | None:
        """Do one run, in the thread of the plugin's actor.

        Args:
            run: the instance's parts, and transactions.

        Returns:
            what is to be said of the run, by names, in its event and to whoever asked for it; None
            is nothing.

        """

    def next_delay(self, context: PluginContext) -> float:
        """Say in how many seconds the next run comes; `interval` by default.

        Asked at the actor's start, and after each run; what it raises is a bug as in `perform`.
        """
        return self.interval

    def child_spec(self, context: PluginContext) -> ChildSpec:
        """Describe the actor that runs it."""
        from oban_actors.plugins.actor import PluginActor  # noqa: PLC0415 (it needs this class)

        return PluginActor.child_spec(self, context, Trouble(), name=("plugin", self.id))

    def keep(self, **checked: Any) -> None:
        """Keep options as a check returned them, also in a frozen dataclass."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)


# Helpers

_DECORATE = "decorate it with @dataclass(frozen=True, kw_only=True), whose fields are its options"


def _refuse_shadows(cls: type, options: Sequence[str]) -> None:
    """Refuse a default that a subclass states and the dataclass above it would set again."""
    for each in cls.__mro__:
        if "__dataclass_fields__" in vars(each):
            return
        for name in options:
            if name in vars(each) and not hasattr(vars(each)[name], "__set__"):
                raise ConfigError(
                    f"{each.__name__}.{name} would not count, but the default of the class that it "
                    f"inherits: {_DECORATE}"
                )
