"""The lab of two centres: three etcd, eight (or six) PostgreSQL under Patroni, two exchanges, a sandbox network.

As root in network namespaces ``east``, ``west`` and ``witness`` on a bridge in a fourth, ``wan``, where the lab itself
and its probes stand, as a device outside would; without root on loopback addresses. Each site has a tree of files,
an authority, key stores and passwords of its own, and everything between them is TLS.

It is a sandbox: people are synthetic, and one machine stands for three sites. It is there to be broken (``stage``).
"""
