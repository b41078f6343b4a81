"""Tests of oban_actors."""
