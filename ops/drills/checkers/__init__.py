"""The checkers of a drill: each reads the clients' journals and the evidence, and believes the clients.

Pure, one question a module, and no code of the platform: neither its states nor its reconciliation. ``every`` asks all
of them; no scenario can switch one off.
"""
