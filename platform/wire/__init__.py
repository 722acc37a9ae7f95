"""The messages on Chukan's two wires, one definition each: decoding, OpenAPI and tests all come from these structs.

``network`` is what travels between an exchange and the information-provision network, ``agency`` what travels between
an agency's systems and an exchange. Nothing here does I/O, and nothing here knows how a message is stored.
"""
