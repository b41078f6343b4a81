"""Plugins by name, in a file or a variable."""

import pytest

from oban_actors import ConfigError, Plugin
from oban_actors.plugins.cron import Cron
from oban_actors.settings.plugins import KNOWN
from tests.settings.loading import SWEEPER, Load, Sweeper, refused


def test_plugins_come_by_name_or_place(settings: Load) -> None:
    """With a table of options, `true` for the defaults; `false` leaves one out."""
    toml = f"[plugins.'{SWEEPER}']\ntable = 'dust'"

    (plugin,) = settings(toml).config.plugins
    assert plugin == Sweeper(table="dust")
    assert settings(f"plugins = ['{SWEEPER}']").config.plugins == (Sweeper(),)
    assert settings(f"plugins = {{ '{SWEEPER}' = true }}").config.plugins == (Sweeper(),)
    assert settings(f"plugins = {{ '{SWEEPER}' = false }}").config.plugins == ()
    variable = {"OBAN_PLUGINS": f'{{"{SWEEPER}": {{"table": "ash"}}}}'}
    assert settings(toml, variable).config.plugins == (Sweeper(table="ash"),)
    assert settings(toml, plugins=[Sweeper(interval=1)]).config.plugins == (Sweeper(interval=1),)


def test_a_crontab_is_a_list_of_tables(settings: Load) -> None:
    """`[[plugins.cron.crontab]]`, or the lists that `Cron` itself takes."""
    toml = """
        [plugins.cron]
        timezone = "Europe/Berlin"
        crontab = [["@hourly", "shop.Hourly"]]
        """
    tables = """
        [plugins.cron]
        timezone = "Europe/Berlin"
        [[plugins.cron.crontab]]
        expression = "0 9 * * MON"
        worker = "shop.Report"
        args = { week = true }
        queue = "reports"
        """
    (plugin,) = settings(toml).config.plugins
    assert plugin.entries == Cron([("@hourly", "shop.Hourly")], timezone="Europe/Berlin").entries
    (plugin,) = settings(tables).config.plugins
    options = {"args": {"week": True}, "queue": "reports"}
    report = ("0 9 * * MON", "shop.Report", options)
    assert plugin.entries == Cron([report], timezone="Europe/Berlin").entries
    with refused(
        "oban.toml: invalid value for 'plugins.cron.crontab[0]': missing required option 'worker'"
    ):
        settings("[[plugins.cron.crontab]]\nexpression = '@daily'")


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_library_s_own_plugins_have_names(settings: Load, name: str) -> None:
    """With their defaults; an option that they don't have is named."""
    (plugin,) = settings(f"plugins = ['{name}']").config.plugins

    assert isinstance(plugin, Plugin)
    with pytest.raises(ConfigError, match=rf"^oban.toml: invalid value for 'plugins.{name}': unkn"):
        settings(f"plugins = {{ {name} = {{ nonsense_option = 1 }} }}")
