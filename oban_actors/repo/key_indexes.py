"""The indexes for jobs that are unique by keys of their args, one for each set of keys."""

from hashlib import sha256

Keys = tuple[str, ...]
"""Keys of args that are compared together, in ascending order."""


def name_of(keys: Keys) -> str:
    """Name the index for a set of keys, whatever is in those."""
    return f"oban_actors_keys_{sha256(repr(keys).encode()).hexdigest()[:16]}_index"


def definition_of(keys: Keys) -> str:
    """Define it as SQL: no job without all of these keys has an entry."""
    hashes = [hash_of("args", literal(key)) for key in keys]
    there = " AND ".join(f"{each} IS NOT NULL" for each in hashes)
    return f"(worker, {', '.join(hashes)}, inserted_at) WHERE {there}"


def hash_of(args: str, key: str) -> str:
    """Write what it has of args: a hash, since an entry of any size would be refused.

    Args:
        args: the column, as SQL.
        key: the key, as SQL.

    """
    return f"jsonb_hash_extended({args} -> {key}, 0)"


def literal(key: str) -> str:
    """Write a key as SQL."""
    quoted = "'" + key.replace("'", "''") + "'"
    # What a backslash means is the server's setting, but for a string that says so itself.
    return "E" + quoted.replace("\\", "\\\\") if "\\" in key else quoted
