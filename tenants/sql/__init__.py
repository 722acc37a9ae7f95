"""The database schema of a cell: numbered SQL files in ``pre`` and ``post``, run by ``tenants.migrate``.

Every statement that touches agency tables stands here or in the door-1 modules of ``tenants``; there is no other SQL.
Released files never change (the ledger holds their digests); a change is a new file.
"""
