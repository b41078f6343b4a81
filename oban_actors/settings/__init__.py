"""Options from keyword arguments, the environment and a TOML file, in this order."""

from oban_actors.settings.settings import Settings, load

__all__ = ["Settings", "load"]
