"""Health: a small HTTP endpoint: whether a node lives, is ready, and what its tree does."""

from oban_actors.actors import ChildSpec, Supervisor
from oban_actors.config import Config
from oban_actors.health.checkup import Checkup
from oban_actors.health.judging import Check, Vitals
from oban_actors.health.server import Door, HealthServer
from oban_actors.options import HealthOptions
from oban_actors.repo import Repo

__all__ = ["Check", "Checkup", "HealthServer", "Vitals", "health_spec"]


def health_spec(config: Config, repo: Repo, options: HealthOptions) -> ChildSpec:
    """Describe the endpoint as the first child of an instance: it ends last.

    Args:
        config: the instance's options.
        repo: the way to the database.
        options: those of the endpoint.

    """
    return Supervisor.child_spec(
        [
            HealthServer.child_spec(
                config, options, Door(options.port), id="server", name="health"
            ),
            Checkup.child_spec(config, repo, options.interval, name="checkup"),
        ],
        id="health",
    )
