"""Chukan (中間): an open municipal intermediate-server platform (自治体中間サーバー・プラットフォーム).

The repository root is this package. The rooms, in the order in which they may import one another:

``ops``  →  ``platform``  →  ``tenants``  →  ``replication``  →  the ground (``errors``, ``settings``, ``clock``,
``chance``, ``log``)

``vpn`` stands beside ``platform``. Nothing imports upwards; ARCHITECTURE.md is the map.
"""
