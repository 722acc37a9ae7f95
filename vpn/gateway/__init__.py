"""The gateway of one centre (拠点のVPNゲートウェイ): a process that keeps the links as the database says they shall be.

``config`` says what it is given; ``state`` is what it keeps on its own disk; ``desired`` makes of the database's rows,
of what was seen before and of the time what is to be; ``rotation`` says which of two keys counts; ``drift`` what of all
differences is worth telling; ``kinds`` is the port to one set of tunnels; ``controller`` the loop; ``takeover`` who
serves devices of one tunnel; ``metrics`` and ``server`` what Prometheus sees; ``parts`` puts it together.

Invariant: sessions never depend on this process. It may die at any moment, and the database may be away for days: what
runs goes on, and the next pass changes only what differs. A plain asyncio loop: pyroute2 does not work on uvloop.
"""
