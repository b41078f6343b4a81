"""Tests of inserting: unique jobs, host transactions, streams."""
