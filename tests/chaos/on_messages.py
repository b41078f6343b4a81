"""Notifications that are none, by the thousand, on every channel that nodes listen to."""

import itertools
import math

import psycopg

from tests.chaos.cases import case
from tests.chaos.scene import Scene

CHANNELS = ("insert", "signal", "actors", "leader", "sonar", "gossip")

RUBBISH = (
    "",
    "{",
    "null",
    "[1]",
    '"text"',
    "1e999",
    "Z:",
    "Z:!!!",
    "Z:H4sIAAAAAAAA",
    "H4sIAAAAAAAAA6tWyk",
    "[" * 7000,
    "{}",
    '{"queue": null}',
    '{"queue": ["alpha"]}',
    '{"queue": "alpha", "action": 7}',
    '{"action": "pkill", "job_id": "one"}',
    '{"action": "start", "queue": 7, "limit": []}',
    '{"action": "stop", "queue": {}}',
    '{"due": "yesterday"}',
    '{"due": 1e308}',
    '{"down": 7, "name": {}}',
    '{"name": "Oban", "beat": "web.9", "next": 1, "renewed": 1' + "0" * 400 + "}",
    '{"name": "Oban", "beat": "web.9", "next": -1e999, "renewed": true}',
    '{"node": [], "name": 1, "ping": {}}',
    '{"ident": {}}',
)


@case(
    "notifications",
    "100,000 malformed notifications",
    told=(r"dropped a notification on 'insert'",),
)
def notifications(scene: Scene) -> None:
    """What can't be read is dropped, and said once a minute; what means nothing is passed over."""
    # No fewer than that: of each as many as of the others.
    count = math.ceil((100_000 if scene.long else 5_000) / (len(CHANNELS) * len(RUBBISH)))
    with scene.strike(), psycopg.connect(scene.server.conninfo(_name(scene))) as connection:
        # Each with more blanks, as a transaction sends what is the same once.
        send = "SELECT pg_notify(%s, %s || repeat(' ', n)) FROM generate_series(1, %s) AS n"
        for channel, rubbish in itertools.product(CHANNELS, RUBBISH):
            connection.execute(send, (f"public.oban_{channel}", rubbish, count))
            connection.commit()


def _name(scene: Scene) -> str:
    return scene.database.url.rpartition("/")[2]
