"""Asking the Stager, and knowing its events."""

from oban_actors import Oban, Stage, StageResult
from oban_actors.stager import Stager
from tests.support.events import Event

SLOW = {"interval": 3600.0}


def stage(oban: Oban) -> StageResult:
    """Ask for one pass."""
    result = oban.ask("stager", Stage(), timeout=30)
    assert isinstance(result, StageResult)
    return result


def of_stager(event: Event) -> bool:
    """Whether an event is the Stager's."""
    return event.metadata.get("plugin") is Stager
