"""The device's side of a link (団体側の回線装置): keys that are made here and stay here, two tunnels, one moving route.

``keys`` makes keys, ``folder`` keeps them, ``enrolling`` asks and takes in what was granted; ``wgquick`` and ``qr``
write the configuration for other tools. ``health`` judges the two centres (pure), ``probes`` asks them, ``interfaces``
keeps the tunnels and the route, ``pins`` lets open connections stay on theirs; ``agent`` is the loops over these behind
``ports``, ``running`` puts it together; ``settings`` is what it can be told, ``status`` what it tells.

Invariant: no private key leaves the folder but into the WireGuard interface and, at a person's word, onto a screen.
"""
