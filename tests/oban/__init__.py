"""Oban as a host uses it."""
