"""Fixtures for the simulation's own tests."""

import faulthandler

import pytest


@pytest.fixture(autouse=True)
def _no_dump_of_greenlets() -> None:
    """Let no stacks be shown of a test that takes long: read beside greenlets, that ends it."""
    faulthandler.cancel_dump_traceback_later()
