"""Tests of the tables' migrations."""
