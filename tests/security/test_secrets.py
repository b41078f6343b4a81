"""Passwords of databases, in every form in which one can be given, are shown nowhere."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Any
from urllib.parse import quote, quote_plus
from urllib.request import urlopen

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oban_actors import (
    Config,
    ConfigError,
    DatabaseError,
    GetAddress,
    Oban,
    Stage,
    StartFailed,
)
from oban_actors.actors import Ref
from oban_actors.config import NotifierOptions
from oban_actors.doctor import examine
from oban_actors.notifiers import PostgresNotifier
from oban_actors.settings import load
from oban_actors.stager import Stager
from tests.cli.commands import command
from tests.support.databases import Database
from tests.support.events import Recorder, recording
from tests.support.ports import free_port
from tests.support.waiting import wait_until

MARK = "Zq7"
"""Begins and ends each password: any piece of these is a leak."""

PASSWORDS = st.text(
    st.sampled_from("abcXYZ019@:/?#[]%&=+;,'\"\\ $(){}<>|`~^!*äß漢"), min_size=1, max_size=12
).map(lambda text: f"{MARK}{text}{MARK}")

URL = "postgresql+psycopg://someone:{quoted}@127.0.0.1:{port}/none"
OPTION = "postgresql://127.0.0.1:{port}/none?user=someone&password={plus}"
FORMS = (
    URL,
    URL.replace("+psycopg", "+asyncpg"),
    OPTION,
    "postgresql://someone:{quoted}@/none?host=127.0.0.1&port={port}&sslpassword={plus}",
    "postgresql://:{quoted}@127.0.0.1:{port}/none",
    "postgresql://someone:{quoted}@127.0.0.1:{port},127.0.0.1:{port}/none",
)
BROKEN = (
    "postgresql://someone:{raw}@127.0.0.1:{port}/none",
    "postgresql//someone:{raw}@127.0.0.1:{port}/none",
    "{raw}",
    "mysql://someone:{quoted}@127.0.0.1/none",
    "postgresql://someone:{quoted}@127.0.0.1:{raw}/none",
    "://{raw}",
)


@pytest.fixture(scope="module")
def port() -> int:
    """One that nobody listens on."""
    return free_port()


def filled(form: str, password: str, port: int) -> str:
    """Write a password into an address."""
    quoted, plus = quote(password, safe=""), quote_plus(password)
    return form.format(raw=password, quoted=quoted, plus=plus, port=port)


def shows_none(said: list[str]) -> bool:
    """Whether no piece of a password was said."""
    assert [each for each in said if MARK in each] == []
    return True


def all_of(error: BaseException) -> str:
    """Write an error with all its causes, and whatever it holds."""
    said = "".join(format_exception(error))
    for each in (error, error.__cause__, error.__context__):
        said += f"{each} {each!r} {getattr(each, '__dict__', '')}"
    return said


def tried(make: Callable[[], Oban]) -> list[str]:
    """Make an instance, try to use it, and give all that it says of itself meanwhile."""
    said = []
    with recording() as told:
        try:
            oban = make()
        except ConfigError as error:
            return [all_of(error)]
        said += [repr(oban), repr(oban.config), repr(oban.repo), repr(oban.repo.engine)]
        said += [repr(vars(oban.repo)), str(oban.config.notifier)]
        for call in (oban.migrate, oban.start, oban.repo.raw_connection):
            with pytest.raises((DatabaseError, StartFailed)) as caught:
                call()
            said.append(all_of(caught.value))
        oban.stop()
    return said + [f"{event.measurements} {event.metadata}" for event in told.all()]


FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(PASSWORDS, st.sampled_from(FORMS), st.sampled_from(["text", "URL", "engine"]))
@example("Zq7@:/?#%Zq7", OPTION, "engine")
def test_addresses(
    caplog: pytest.LogCaptureFixture, port: int, password: str, form: str, how: str
) -> None:
    """Neither reprs, errors, logs, events nor the tree show it, given as text, URL or engine."""
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    url = filled(form, password, port)
    if how == "engine" and "asyncpg" not in url and "," not in url:
        given = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
        said = tried(lambda: Oban(given))
    elif how == "URL" and "," not in url:
        said = tried(lambda: Oban(sa.make_url(url)))
    else:
        said = tried(lambda: Oban(url))

    assert shows_none([*said, caplog.text])


@FEW
@given(PASSWORDS, st.sampled_from(BROKEN), st.sampled_from(["database", "listen_url", "file"]))
@example("Zq7@/Zq7", BROKEN[0], "database")
@example("Zq7@?a=Zq7", BROKEN[0], "listen_url")
def test_broken_addresses(
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    port: int,
    password: str,
    form: str,
    how: str,
) -> None:
    """What can't be read may be a password as a whole, and is refused unseen."""
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    url = filled(form, password, port)
    given: Any = url
    options: dict[str, Any] = {}
    if how == "listen_url":
        given, options = f"postgresql://127.0.0.1:{port}/none", {"notifier": {"listen_url": url}}
    if how == "file":
        text = f"database_url = {json.dumps(url, ensure_ascii=False)}\n"
        (tmp_path / "oban.toml").write_text(text, "utf-8")
        said = tried(lambda: load(environ={}, directory=tmp_path).make(Oban))
    else:
        said = tried(lambda: Oban(given, **options))

    assert shows_none([*said, caplog.text])


def test_a_host_engine_with_a_secret_of_its_own(
    caplog: pytest.LogCaptureFixture, port: int
) -> None:
    """What a host gives to its own way of connecting is shown by nothing of ours."""
    caplog.set_level(logging.DEBUG)
    url = f"postgresql+psycopg://someone@127.0.0.1:{port}/none"
    given = sa.create_engine(url, connect_args={"password": f"{MARK}secret{MARK}"})

    assert shows_none([*tried(lambda: Oban(given)), caplog.text])


def test_a_service_file(
    caplog: pytest.LogCaptureFixture, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What libpq reads from a file of its own, we never see."""
    caplog.set_level(logging.DEBUG)
    service = tmp_path / "services"
    service.write_text(f"[jobs]\nhost=127.0.0.1\nport={port}\npassword={MARK}secret{MARK}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGPASSWORD", f"{MARK}other{MARK}")

    assert shows_none([*tried(lambda: Oban("postgresql:///?service=jobs")), caplog.text])


def test_a_listen_url(caplog: pytest.LogCaptureFixture, port: int) -> None:
    """The options of the notifier show neither it nor what it holds."""
    caplog.set_level(logging.DEBUG)
    url = filled(URL, f"{MARK}@{MARK}", port)
    oban_url = f"postgresql://127.0.0.1:{port}/none"

    assert "listen_url" not in repr(NotifierOptions(listen_url=url))
    assert "listen_url" not in repr(Config.build(notifier={"listen_url": url}))
    said = tried(lambda: Oban(oban_url, notifier={"listen_url": url}))
    assert shows_none([*said, caplog.text])


def test_a_tree_that_runs(pg: Database, caplog: pytest.LogCaptureFixture, events: Recorder) -> None:
    """Its tree, by HTTP too, the doctor and a crash with its actor's state show none."""
    caplog.set_level(logging.DEBUG)
    url = sa.make_url(pg.url).set(password=f"{MARK}secret{MARK}")
    plain = url.set(drivername="postgresql")
    oban = Oban(
        url,
        prefix=pg.prefix,
        health=0,
        queues={"alpha": 1},
        notifier={"listen_url": plain.render_as_string(hide_password=False)},
    )
    oban.migrate()
    with oban:
        port = oban.ask("health", GetAddress(), timeout=30).port
        with urlopen(f"http://127.0.0.1:{port}/tree", timeout=30) as answer:
            said = [answer.read().decode()]
        said += [str(oban.tree()), repr(oban.tree()), repr(examine(oban.repo))]
        for name, kind in (("notifier", PostgresNotifier), ("stager", Stager)):
            before = oban.whereis(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kind, "handle_info", breaking_once(kind.handle_info))
                oban.tell(name, Stage())
                wait_until(partial(replaced, oban, name, before))
        said += [str(oban.tree()), repr(oban.tree())]
    oban.repo.close()

    assert "crashed" in caplog.text
    said += [f"{event.measurements} {event.metadata}" for event in events.all()]
    assert shows_none([*said, caplog.text])


def replaced(oban: Oban, name: str, old: Ref) -> bool:
    """Whether another actor has the name."""
    return oban._runtime.registry.whereis(name) not in (None, old)


def breaking_once(handle: Callable[[Any, Any], object]) -> Callable[[Any, Any], object]:
    """Fail the first time, with a message that shows all that the actor holds."""
    faults = [RuntimeError]

    def handler(actor: Any, message: Any) -> object:
        # More than once would be a storm, which ends the tree, where its successor is quick.
        if faults:
            raise faults.pop()(f"broken: {vars(actor)} {vars(actor).get('config')!r}")
        return handle(actor, message)

    return handler


@pytest.mark.slow
@pytest.mark.parametrize("words", [("config", "check"), ("jobs", "list", "--debug"), ("doctor",)])
def test_commands(port: int, words: tuple[str, ...]) -> None:
    """A command shows none of it, in its errors and tracebacks either."""
    url = filled(OPTION, f"{MARK}&'{MARK}", port)
    done = command(*words, more={"OBAN_DATABASE_URL": url})

    assert done.out + done.err != ""
    assert shows_none([done.out, done.err])


# What options hold


@settings(max_examples=60)
@given(PASSWORDS, st.sampled_from(["plugins", "health", "stager", "clock", "engine"]))
def test_options_that_are_refused(password: str, option: str) -> None:
    """A message that names what came leaves out what may be an address or a password."""
    for value in (
        f"postgresql://x:{password}@host/name",
        {"password": password},
        [{"p": password}],
    ):
        with pytest.raises(ConfigError) as caught:
            Config.build(**{option: value})
        assert shows_none([str(caught.value)])
