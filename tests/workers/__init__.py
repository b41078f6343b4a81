"""Tests of workers, and of what becomes of a job that they run."""
