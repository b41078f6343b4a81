"""PgBouncer before a server, in transaction mode, for as long as a test lasts."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.ports import HOST, free_port
from tests.support.scratch import Scratch, unprivileged
from tests.support.waiting import wait_until

PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin")

SETTINGS = """
[databases]
* = host={host} port={port} user={user}{password}
[pgbouncer]
listen_addr = {listen}
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 100
server_reset_query =
logfile = {directory}/log
pidfile = {directory}/pid
"""


def program() -> str | None:
    """Where PgBouncer is on this machine, if it is there."""
    path = os.pathsep.join([*os.get_exec_path(), *PLACES])
    return shutil.which("pgbouncer", path=path)


@contextmanager
def pgbouncer(url: str, *, size: int = 3) -> Iterator[str]:
    """Give the address of a database as it is behind a pooler.

    Args:
        url: of the database itself.
        size: connections that the pooler has to the server; few, so that sessions do mix.

    """
    found = program()
    if found is None:
        pytest.skip("PgBouncer is not on this machine: install Debian's package pgbouncer")
    behind = sa.make_url(url)
    with Scratch(unprivileged()) as scratch:
        port = free_port()
        settings = SETTINGS.format(
            host=behind.host,
            port=behind.port or 5432,
            user=behind.username,
            password=f" password={behind.password}" if behind.password else "",
            listen=HOST,
            listen_port=port,
            size=size,
            directory=scratch.path,
        )
        file = Path(scratch.path, "pgbouncer.ini")
        file.write_text(settings)
        file.chmod(0o644)
        user, group = scratch.account
        foreign = user != os.geteuid()
        process = subprocess.Popen(
            [found, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=scratch.path,
            user=user if foreign else None,
            group=group if foreign else None,
            extra_groups=[] if foreign else None,
            process_group=0,
        )
        try:
            wait_until(lambda: process.poll() is not None or _answers(port))
            assert process.poll() is None, Path(scratch.path, "log").read_text()
            yield behind.set(host=HOST, port=port).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(30)


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except OSError:
        return False
    return True
