"""Tests of options from keyword arguments, variables and files."""
