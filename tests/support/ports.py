"""Free TCP ports for servers that must come back on the same one."""

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"


def free_port() -> int:
    """A port nobody listens on.

    From below the range that the kernel gives to outgoing connections: else, while a server is
    down, a client that tries to reach it could take its port or connect to itself.
    """
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10_000 + secrets.randbelow(max(lowest_outgoing, 12_000) - 10_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
