"""Tests of what users' own tests are made with."""
