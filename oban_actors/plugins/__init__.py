"""Work that a tree does by itself: what a plugin is, and those that come with the library."""

from oban_actors.plugins.actor import PluginActor
from oban_actors.plugins.cron import Cron
from oban_actors.plugins.cron_entry import EntryOptions
from oban_actors.plugins.lifeline import Lifeline
from oban_actors.plugins.plugin import (
    Duty,
    LeadershipLost,
    Plugin,
    PluginContext,
    PluginResult,
    PluginRun,
)
from oban_actors.plugins.pruner import PrunedJob, Pruner
from oban_actors.plugins.reindexer import Reindexer

__all__ = [
    "Cron",
    "Duty",
    "EntryOptions",
    "LeadershipLost",
    "Lifeline",
    "Plugin",
    "PluginActor",
    "PluginContext",
    "PluginResult",
    "PluginRun",
    "PrunedJob",
    "Pruner",
    "Reindexer",
]
