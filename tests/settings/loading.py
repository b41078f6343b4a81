"""What the tests of settings share: how they load them, a plugin, and an error's exact words."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from oban_actors import ConfigError, Plugin, PluginRun
from oban_actors.settings import Settings

Load = Callable[..., Settings]


@dataclass(frozen=True)
class Sweeper(Plugin):
    """A host's own plugin."""

    interval: float = 60.0
    table: str = "rubbish"

    def validate(self) -> None:
        """Refuse what is no interval."""
        if self.interval <= 0:
            raise ValueError("interval has to be positive")

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Sweep nothing."""
        return {}


SWEEPER = f"{__name__}:Sweeper"


def refused(message: str) -> Any:
    """Expect a ConfigError with exactly this message."""
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")
