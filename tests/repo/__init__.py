"""Tests of connections and transactions."""
