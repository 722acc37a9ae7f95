"""WireGuard by whatever this machine has: one port (``port``), two back ends behind it, and the choice between them.

- ``port``: what the controller may ask of an interface.
- ``uapi``: wireguard-go and its like, over their Unix socket; ``userspace`` starts and adopts such a process.
- ``kernel``: the kernel's own, over generic netlink.
- ``choose``: finds out by trying which of the two it is.

Never ``replace_peers``: it ends every session on the interface (15.6 s until the devices are back, measured).
"""
