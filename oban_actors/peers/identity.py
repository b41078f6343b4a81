"""How a holder is named in `oban_peers`: ours by process, so that no two are ever the same."""

import hashlib

from oban_actors.config import Config

MARK = "/oban_actors:"
"""Parts a node's name from the process's identity; no Elixir node's name has it."""

LOCKED = ":lock"
"""Ends the name of a holder whose session advisory lock backs the lease."""


def row_identity(config: Config) -> str:
    """Name this process in the `node` column and in its beats, without the lock's mark."""
    return f"{config.node}{MARK}{config.identity}"


def is_locked(node: str) -> bool:
    """Whether a row's holder says that a lock backs it."""
    return MARK in node and node.endswith(LOCKED)


def owner(node: str) -> str | None:
    """Give a row's holder without the lock's mark; None when it isn't one of ours."""
    return node.removesuffix(LOCKED) if MARK in node else None


def lock_key(config: Config) -> int:
    """Give the key of the advisory lock of this cluster: 64 bits, signed as PostgreSQL has them."""
    text = f"oban_actors:peer:{config.prefix}:{config.name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
