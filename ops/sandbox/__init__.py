"""The simulated neighbours of the platform (検証環境): the network, the registry network, counterparts, agency systems.

- ``network`` side: ``serve`` runs the information-provision network (情報提供ネットワークシステム) as a process with a
  durable store of its own; ``core`` decides, ``delivery`` pushes, ``network_app`` speaks HTTP;
- ``registry``: the registry network (住基ネット) hands resident codes to the network, never to an exchange;
- ``counterpart``: national agencies outside the platform that speak nothing but the network protocol;
- ``clients``: the agency API as a client, and what an agency's addressee system and business systems do with it.

Invariant: everything here reaches an exchange only through the two wires in ``chukan.platform.wire``; nothing here
reads a cell, a key store or a setting of the platform.
"""
