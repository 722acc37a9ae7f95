"""Migrations run before new code starts: they only add, so that the code of the release before keeps working."""
