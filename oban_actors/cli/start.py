"""`start`: a node, or a parent with several."""

import gc
import logging
from typing import Any

import click

from oban_actors.actors import Reason
from oban_actors.cli.exits import DONE, FAILED
from oban_actors.cli.fleet import Fleet
from oban_actors.cli.output import fail, log_to_stderr
from oban_actors.cli.parent import Parent
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.cli.worker import work
from oban_actors.config import Config
from oban_actors.errors import ConfigError
from oban_actors.logger import attach_default_logger
from oban_actors.oban import Oban
from oban_actors.settings import environment
from oban_actors.worker_registry import import_workers

logger = logging.getLogger("oban_actors")

_LEVELS = click.Choice(["debug", "info", "warning", "error"])


@click.command(
    epilog=examples(
        "oban-actors start --import shop.mail --queues mailers=10,media=4",
        "oban-actors start --processes 4 --health-port 8085",
    ),
)
@click.option(
    "--import", "imports", multiple=True, metavar="MODULE", help="With workers; may be repeated."
)
@click.option("--queues", metavar="NAME=LIMIT,...", help="The queues that this node runs.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Worker processes.")
@click.option(
    "--health-port",
    type=click.IntRange(0, 65_535),
    help="Port for /live, /ready and /tree; with --processes the first worker's, others follow.",
)
@click.option("--log-level", type=_LEVELS, default="info", show_default=True)
@click.option("--worker-link", type=int, hidden=True)
@click.option("--worker-index", type=int, hidden=True)
@common
@pass_session
def start(
    session: Session,
    imports: tuple[str, ...],
    queues: str | None,
    processes: int | None,
    health_port: int | None,
    log_level: str,
    worker_link: int | None,
    worker_index: int | None,
) -> int:
    """Run a node until SIGTERM, SIGHUP or Ctrl-C: its queues, staging, leadership, plugins.

    Jobs that run have the grace period to end in (shutdown_grace_period, 15 s); a second signal
    tells them to end at once. With --processes, N workers run under a parent, which starts those
    again that die, ends if they die too often, and stops them in order, the last first. Workers
    end when their parent does, however it goes.
    """
    options = _options(imports, queues, health_port)
    who = "" if worker_index is None else f" worker {worker_index}:"
    form = f"%(asctime)s %(process)d %(levelname)s{who} %(message)s"
    log_to_stderr(logging.getLevelNamesMapping()[log_level.upper()], form)
    settings = session.settings(plugins=True, **options)
    health = settings.config.health
    if worker_index and health is not None and health.port:
        # Each worker answers at a port of its own.
        options["health"] = {"port": health.port + worker_index}
        settings = session.settings(plugins=True, **options)
    oban = settings.make(Oban)
    if processes is not None and worker_link is None:
        # It has not connected to anything, and never will.
        oban.stop()
        fleet = Fleet(processes, settings.config.shutdown_grace_period)
        return Parent(session.args, fleet).run()
    import_workers(settings.config.imports)
    _announce(oban.config, worker_index)
    attach_default_logger(name=oban.config.name)
    # What was imported stays. To look through it takes tens of milliseconds, in which no job runs.
    gc.collect()
    gc.freeze()
    return _ended(oban.run() if worker_link is None else work(oban, worker_link))


def _options(imports: tuple[str, ...], queues: str | None, port: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if imports:
        options["imports"] = imports
    if queues is not None:
        try:
            options["queues"] = environment.queues("queues", queues)
        except ConfigError as error:
            raise ConfigError(f"--queues: {error}") from None
    if port is not None:
        options["health"] = {"port": port}
    return options


def _announce(config: Config, index: int | None) -> None:
    shown = ", ".join(f"{name}={how.limit}" for name, how in config.queues.items())
    if shown:
        logger.info("%s runs on %s: %s", config.name, config.node, shown)
    elif not index:
        logger.warning("%s has no queues: it runs no jobs here", config.name)


def _ended(reason: Reason) -> int:
    if not reason.abnormal:
        return DONE
    fail(f"the tree gave up: {reason}")
    return FAILED
