"""Durable background jobs on the database a program already has, run by supervised actors."""

__version__ = "0.1.0"
