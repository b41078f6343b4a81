"""A running tree, and a database or network that goes away under it."""

import psycopg
import pytest

from oban_actors import GetStatus, Oban, Stage
from tests.support.databases import Database
from tests.support.instances import Starter, available, scheduled, starter, wait_until_leader
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.db, pytest.mark.slow]

FAST = {"interval": 0.2}


def crashes(oban: Oban) -> list[str]:
    """What any actor of the tree died of."""
    return [node.last_crash for node in oban.tree().walk() if node.last_crash]


def staging_resumes(one: Starter, oban: Oban) -> None:
    """Wait until the tree leads and stages, and its listeners hear."""
    heard = one.hear(oban, "insert")
    wait_until_leader(oban)
    before = one.tables.count("available")
    oban.insert(scheduled(0.1))
    wait_until(lambda: one.tables.count("available") == before + 1, timeout=60)
    heard.wait_for("insert")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server_melts_nothing(
    own_server: PostgresServer, own_database: Database, mode: str
) -> None:
    """No actor crashes, staging resumes, and who listened before hears again."""
    with starter(own_database) as one:
        oban = one.leading(stager=FAST)
        heard = one.hear(oban, "insert")
        own_server.stop(mode)  # type: ignore[arg-type]  # one of its modes
        wait_until(lambda: oban.ask("stager", Stage(), timeout=30).leader is False)
        own_server.start()

        staging_resumes(one, oban)
        heard.wait_for("insert")
        assert crashes(oban) == []


def test_terminated_sessions_melt_nothing(
    own_server: PostgresServer, own_database: Database
) -> None:
    """Every session of the tree is ended, several times; it goes on."""
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    with starter(own_database) as one:
        oban = one.leading(stager=FAST)
        heard = one.hear(oban, "insert")
        for _ in range(3):
            with psycopg.connect(own_server.conninfo(), autocommit=True) as connection:
                connection.execute(f"{kill} AND application_name LIKE 'oban_actors%'")
            staging_resumes(one, oban)
        heard.wait_for("insert", 2)
        assert crashes(oban) == []


def test_a_silent_connection_under_the_notifier_is_noticed(
    own_server: PostgresServer, own_database: Database
) -> None:
    """A ping that does not come back makes the Notifier connect anew."""
    with TcpProxy(own_server.port) as proxy, starter(own_database) as one:
        listen_url = own_database.url.replace(f":{own_server.port}", f":{proxy.port}").replace(
            "postgresql+psycopg", "postgresql"
        )
        oban = one.leading(
            notifier={"kind": "postgres", "listen_url": listen_url},
            pulse={"interval": 1.0},
            stager=FAST,
        )
        heard = one.hear(oban, "insert")
        wait_until(lambda: oban.ask("pulse", GetStatus()) == "solitary")
        proxy.freeze()
        wait_until(lambda: oban.ask("pulse", GetStatus()) == "isolated", timeout=60)
        assert oban.ask("stager", Stage(), timeout=30).leader is True
        proxy.thaw()
        wait_until(lambda: oban.ask("pulse", GetStatus()) == "solitary", timeout=60)

        oban.insert(available("gamma"))
        wait_until(lambda: {"queue": "gamma"} in heard.payloads("insert"), timeout=60)
        assert crashes(oban) == []
