"""The seeded simulation (DESIGN §11): the real exchange on a made-up clock, cells, network and crashes.

One seed makes one world: two exchanges, two cells, the network, agencies, clients and officers, and everything that
goes wrong. The exchange, its flows, stages, workers, leases and waiters are the shipped code; so are the sandbox
network's decisions and its couriers. What is modelled is the ground under them: ``loop`` (time, order, pauses,
crashes), ``cell`` (the set functions of one PostgreSQL cell, held to the real ones by a conformance test), ``wires``
(what is lost, late or twice). ``checkers`` judge what is left by the clients' journals and the cells' rows, never by
the exchange's word.

Nothing here may be used on a site: keys and randomness are reproducible on purpose.
"""
