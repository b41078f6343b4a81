"""Calls that make the tables, or take them back."""

from oban_actors.calls.base import Calls
from oban_actors.repo.key_indexes import KeyIndex
from oban_actors.repo.migrator import migrate, rollback


class SchemaCalls(Calls):
    """The tables of an instance; see `Oban`."""

    def migrate(self, version: int | None = None) -> int:
        """Create the tables, or bring them to the newest version; safe to repeat.

        Mirrors `Oban.Migration.up/1`. See docs/database.md for the rights it takes.

        Args:
            version: Oban's version to stop at; the newest known one by default.

        Returns:
            the version that the tables have now; `sys.maxsize` for jobs tables that somebody else
            looks after.

        Raises:
            ConfigError: the version asked for is unknown.
            SchemaTooNew: a newer version made them; nothing was changed.
            DatabaseError: the database refused or failed; nothing was changed.
            ForkedError: this process is a fork of the one that has used this object.

        """
        self._refuse_fork()
        return migrate(
            self.repo,
            elixir_indexes=self.config.elixir_indexes,
            key_indexes=[
                *(KeyIndex("args", keys) for keys in self.config.unique_keys),
                *(KeyIndex("meta", keys) for keys in self.config.unique_meta_keys),
            ],
            version=version,
        )

    def rollback(self, version: int = 0) -> int:
        """Take the tables back to an older version; 0, the default, drops them with all jobs.

        Unlike `Oban.Migration.down/1`, where the version is the last one to be undone, it is the
        one that is left.

        Args:
            version: Oban's version to go back to.

        Returns:
            the version that the tables have now.

        Raises:
            ConfigError: the version asked for is unknown.
            SchemaTooNew: a newer version made them; nothing was changed.
            DatabaseError: the database refused or failed; nothing was changed.
            ForkedError: this process is a fork of the one that has used this object.

        """
        self._refuse_fork()
        return rollback(self.repo, version=version)
