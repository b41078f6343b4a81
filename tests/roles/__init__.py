"""Roles of PostgreSQL with no more rights than they need."""
