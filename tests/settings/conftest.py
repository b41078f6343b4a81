"""Fixtures: settings loaded from a file and variables of the test's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oban_actors.settings import Settings, load
from tests.settings.loading import Load


@pytest.fixture
def settings(tmp_path: Path) -> Load:
    """Load settings from the file `oban.toml` with this text, and these variables."""

    def loaded(
        toml: str = "", /, environ: Mapping[str, str] | None = None, **given: Any
    ) -> Settings:
        if toml:
            (tmp_path / "oban.toml").write_text(toml, "utf-8")
        return load(environ=environ or {}, directory=tmp_path, **given)

    return loaded
