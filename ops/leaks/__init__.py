"""Searching a running installation for planted values: in which forms, in which places, and what was found."""
