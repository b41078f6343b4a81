"""The indexes for jobs that are unique by keys of a document, one for each set of keys."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

Column = Literal["args", "meta"]
"""A document of a job."""

Keys = tuple[str, ...]
"""Keys that are compared together, in ascending order."""


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """An index for a set of keys.

    Attributes:
        column: the document that has them.
        keys: the set.

    """

    column: Column
    keys: Keys

    @property
    def name(self) -> str:
        """Its name, whatever is in the keys."""
        what = "keys" if self.column == "args" else "meta_keys"
        return f"oban_actors_{what}_{sha256(repr(self.keys).encode()).hexdigest()[:16]}_index"

    @property
    def definition(self) -> str:
        """Its definition as SQL: no job without all of these keys has an entry."""
        hashes = [hash_of(self.column, literal(key)) for key in self.keys]
        there = " AND ".join(f"{each} IS NOT NULL" for each in hashes)
        return f"(worker, {', '.join(hashes)}, inserted_at) WHERE {there}"


def hash_of(document: str, key: str) -> str:
    """Write what it has of a document: a hash, since an entry of any size would be refused.

    Args:
        document: the column, as SQL.
        key: the key, as SQL.

    """
    return f"jsonb_hash_extended({document} -> {key}, 0)"


def literal(key: str) -> str:
    """Write a key as SQL."""
    quoted = "'" + key.replace("'", "''") + "'"
    # What a backslash means is the server's setting, but for a string that says so itself.
    return "E" + quoted.replace("\\", "\\\\") if "\\" in key else quoted
