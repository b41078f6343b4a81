"""Tests of the job stores."""
