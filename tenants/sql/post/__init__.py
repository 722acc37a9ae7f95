"""Migrations run after the last old process has ended: they may remove what only old code used.

A file here belongs to the one in ``pre`` with the same number; most numbers need none.
"""
