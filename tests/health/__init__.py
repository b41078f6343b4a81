"""Tests of the health endpoint."""
