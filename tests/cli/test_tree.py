"""The command that draws a node's tree, whatever answers at the port."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli


class Node:
    """Something that answers at a port."""

    def __init__(self, body: Any, status: int = 200) -> None:
        text = json.dumps(body).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text if self.path == "/tree" else b"?")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Answer no more."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


TREE = {
    "id": "Oban",
    "state": "idle",
    "children": [
        {
            "id": "stager\x1b[2J",
            "state": "busy",
            "handling": "Stage",
            "busy_for": 3.0,
            "inbox": 2,
            "oldest": 61.0,
            "restarts": 4,
            "last_crash": "** (ValueError) [bold]x",
            "children": [],
        }
    ],
}


def test_tree_draws_what_a_node_answers(bare: Cli, directory: Path) -> None:
    """States, inboxes, restarts and crashes; for a program as it came."""
    node = Node(TREE)
    try:
        drawn = bare("tree", "--url", node.url)
        raw = bare("tree", "--url", f"{node.url}/tree", "--json")
    finally:
        node.close()

    assert raw.json == TREE
    assert drawn.out.splitlines()[0].startswith("Oban  idle")
    assert (
        "stager\\x1b[2J  busy  Stage for 3.0s  inbox 2, oldest 1m 1s  restarted 4x  "
        "last crash: ** (ValueError) [bold]x"
    ) in drawn.out


def _talk(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_tree_says_when_no_node_answers(bare: Cli, directory: Path) -> None:
    """Exit code 3; what answers must be a node; 2 where nobody said which."""
    node = Node({"x": 1})
    try:
        other = bare("tree", "--url", node.url)
    finally:
        node.close()
    gone = bare("tree", "--url", node.url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_talk, args=(listener,))
        answering.start()
        ssh = bare("tree", "--health-port", str(listener.getsockname()[1]))
        answering.join()

    assert ssh.code == 3
    assert ssh.err.endswith("what answers there is no node\n")
    assert ssh.err.count("\n") == 1
    assert other.code == 3
    assert (
        other.err == f"error: no node shows its tree at {node.url}: what answers there is no node\n"
    )
    assert gone.code == 3
    assert "Connection refused" in gone.err
    secret = bare("tree", "--url", node.url.replace("//", "//me:pa$$@"))
    assert node.url in secret.err
    assert "pa$$" not in secret.err
    assert bare("tree").code == 2
    assert bare("tree", "--url", "file:///etc/passwd").code == 2
