"""The flows of the exchange as pure functions: what a line becomes when something happens to it.

Nothing here knows of HTTP, SQL, keys or the clock's hands: facts go in, a frozen step comes out, and
``platform.exchange`` carries it out. ``transitions`` is the one table of every transition; the tests and docs/specs
are generated from it.
"""
