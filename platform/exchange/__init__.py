"""The exchange at work: it carries out what ``platform.flows`` decides, through ``tenants`` and the network peer.

It must never hold SQL (that is ``tenants``), never read HTTP (that is ``platform.http``), and never decide by
itself what becomes of a line (that is ``platform.flows``). Everything it does is a set of one side in one cell.
"""
