"""`tree`: the live tree of a running node, asked through its health port."""

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from oban_actors.cli.exits import UNREACHABLE
from oban_actors.cli.output import cell, duration, fail
from oban_actors.cli.session import Session, common, examples, pass_session

PATIENCE = 10.0
"""Seconds that a node has to answer in."""

MOST = 16 * 1024 * 1024
"""Bytes of an answer."""

_SECRET = re.compile(r"//[^/]*@")

_STYLES = {"idle": "green", "busy": "yellow", "waiting": "yellow", "starting": "blue"}


@click.command(
    epilog=examples(
        "oban-actors tree",
        "oban-actors tree --url http://10.0.0.7:8085 --json",
    ),
)
@click.option("--url", metavar="URL", help="Where the node answers, such as http://web1:8085.")
@click.option("--health-port", type=click.IntRange(1, 65_535), help="Its health port, here.")
@common
@pass_session
def tree(session: Session, url: str | None, health_port: int | None) -> int | None:
    """Show the live tree of a running node: states, inboxes, restarts, last crashes.

    The node has to have a health port, OBAN_HEALTH_PORT=8085 or `start --health-port 8085`.
    """
    place = _place(session, url, health_port)
    try:
        found = _fetch(f"{place}/tree")
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, http.client.HTTPException | RecursionError):
            reason = "what answers there is no node"
        fail(f"no node shows its tree at {_SECRET.sub('//', place)}: {reason}")
        return UNREACHABLE
    session.out.result(found, lambda console: console.print(_drawn(found)))
    return None


def _place(session: Session, url: str | None, port: int | None) -> str:
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise click.UsageError("--url has to begin with http:// or https://")
        return url.rstrip("/").removesuffix("/tree")
    if port is not None:
        return f"http://127.0.0.1:{port}"
    health = session.settings().config.health
    if health is None or health.port == 0:
        raise click.UsageError("give --url or --health-port, or configure health.port")
    host = health.host if health.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 (nobody listens here)
    return f"http://{f'[{host}]' if ':' in host else host}:{health.port}"


def _fetch(url: str) -> dict[str, Any]:
    # A proxy of the shell's is not meant for a neighbour's port.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE) as answer:
        found = json.loads(answer.read(MOST))
    if not isinstance(found, dict) or "children" not in found:
        raise ValueError("what answers there is no node")
    return found


def _drawn(node: Mapping[str, Any]) -> Tree:
    made = Tree(_line(node), guide_style="bright_black")
    _add(made, node)
    return made


def _add(made: Tree, node: Mapping[str, Any]) -> None:
    for child in node.get("children") or ():
        _add(made.add(_line(child)), child)


def _line(node: Mapping[str, Any]) -> Text:
    state = str(node.get("state"))
    line = Text.assemble(cell(node.get("id")), "  ", cell(state, _STYLES.get(state, "red")))
    if node.get("handling"):
        line.append_text(cell(f"  {node['handling']} for {duration(node.get('busy_for') or 0.0)}"))
    if node.get("inbox"):
        line.append_text(
            cell(f"  inbox {node['inbox']}, oldest {duration(node.get('oldest') or 0.0)}")
        )
    if node.get("note"):
        line.append_text(cell(f"  {node['note']}"))
    if node.get("restarts"):
        line.append_text(cell(f"  restarted {node['restarts']}x", "magenta"))
    if node.get("last_crash"):
        line.append_text(cell(f"  last crash: {node['last_crash']}", "red"))
    return line
