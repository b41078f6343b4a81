"""No name becomes part of what is sent to PostgreSQL, also past SQLAlchemy: read from the wire."""

import json
import re
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oban_actors import Job, Notify, Oban
from oban_actors.errors import WireError
from tests.security.hostile_tree import NAMES, use_a_tree
from tests.security.statements import CANARY, HOSTILE, TEXTS
from tests.security.wiretap import Wiretap, loose
from tests.support.databases import Database
from tests.support.instances import Starter, starter
from tests.support.waiting import wait_until

FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_loose_is_seen(text: str) -> None:
    """A text that is not in quotes, or ends them, is found; one that is written right is not."""
    right = psycopg.sql.SQL("SELECT {}, {}").format(
        psycopg.sql.Literal([text, json.dumps({"a": text})]), psycopg.sql.Identifier(text)
    )
    wrong = [f"SELECT {text}", f"SELECT '{text[:-1]}'", f"SELECT 1 -- it's {text}"]
    wrong += [f"SELECT {quote}{text}{quote}" for quote in "'\"" if quote in text]

    assert loose(right.as_string(), CANARY, [text]) == []
    assert [each for each in wrong if not loose(each, CANARY, [text])] == []


@pytest.fixture
def tap(pg_url: str) -> Iterator[Wiretap]:
    """A way to the server of which every statement can be read."""
    url = sa.make_url(pg_url)
    with Wiretap(url.port or 5432, url.host or "127.0.0.1") as one:
        yield one


def tapped(tap: Wiretap, pg_url: str, prefix: str) -> Database:
    """Give the database by that way, without the TLS that would hide what is sent."""
    url = sa.make_url(pg_url).set(host=tap.host, port=tap.port)
    url = url.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
    return Database("postgresql", url.render_as_string(hide_password=False), prefix)


@pytest.mark.parametrize("text", NAMES, ids=range(len(NAMES)))
def test_a_tree_on_the_wire(tap: Wiretap, pg_url: str, prefix: str, text: str) -> None:
    """In messages, which hold the values, and in LISTEN each name is whole and in quotes."""
    with starter(tapped(tap, pg_url, prefix)) as start:
        use_a_tree(start, text)

    sent = tap.statements
    texts = (text, text.replace(" ", ""))
    assert [broken for each in sent if (broken := loose(each, CANARY, texts))] == []
    # What this is about was seen: by SQLAlchemy, as messages, and on the notifier's connection.
    for words in ("pg_notify", "; COMMIT", f'LISTEN "{prefix}.oban_{CANARY}'):
        assert any(words in each for each in sent), words
    assert any(CANARY in each and each.startswith("BEGIN") for each in sent)


@pytest.fixture
def on_the_wire(tap: Wiretap, pg_url: str, prefix: str) -> Iterator[tuple[Starter, Oban]]:
    """An instance that runs, all of whose statements can be read."""
    with starter(tapped(tap, pg_url, prefix)) as start:
        yield start, start(stager=None, peer=False)


def test_what_is_prepared(tap: Wiretap, on_the_wire: tuple[Starter, Oban]) -> None:
    """What a session prepares has none of the names; what it is then given has them in quotes."""
    _, oban = on_the_wire

    def prepared() -> bool:
        oban.insert_all([Job.new(worker=text, queue=text) for text in HOSTILE])
        return any(CANARY in each for each in tap.statements if "EXECUTE oban_" in each)

    wait_until(prepared)
    sent = tap.statements
    assert [broken for each in sent if (broken := loose(each, CANARY, HOSTILE))] == []
    assert not any(CANARY in each for each in sent if "PREPARE oban_" in each)


def test_channels_on_the_wire(tap: Wiretap, on_the_wire: tuple[Starter, Oban]) -> None:
    """LISTEN and UNLISTEN have the channels' names whole and in quotes."""
    start, oban = on_the_wire
    given_: set[str] = set()

    @FEW
    @given(st.lists(TEXTS, min_size=1, max_size=3))
    def listen(channels: list[str]) -> None:
        given_.update(channels)
        try:
            heard = start.hear(oban, *channels)
        except WireError:
            return
        for channel in channels:
            oban.ask("notifier", Notify(channel, [{"on": channel}]), timeout=30)
            heard.wait_for(channel)
        heard.ref.stop()

    listen()
    sent = tap.statements
    assert [broken for each in sent if (broken := loose(each, CANARY, given_))] == []
    for word in ("LISTEN", "UNLISTEN"):
        assert any(re.search(rf'\b{word} "[^"]*{CANARY}', each) for each in sent), word
