"""A link per body (団体ごとの回線): tunnels, packet filter, devices, and the controller that keeps them in order.

The map of the room:

- ``model`` is what a device has and shall have, ``plan`` the way from the one to the other: pure, no input, no output.
- ``wireguard`` is the port to an interface and what stands behind it: the kernel's, or wireguard-go.
- ``netdev`` makes interfaces, addresses and routes; ``firewall`` says in data what may pass, and ``nft`` carries it in.
- ``ipsec`` is the second kind of link, for devices that speak IKEv2.
- ``gateway`` is one centre's controller: it reads the desired state, plans, applies, and tells what drifted.
- ``enrolment`` and ``device`` are the municipal side: keys that are made there, invitations, configurations, the agent.

What must be true of it: a body reaches the services and nobody else; a link that was taken away stays away, its open
connections included; a change to one link touches no other's session; and no session depends on the controller, which
may die at any moment. It runs on plain asyncio: the netlink library does not work on uvloop.

Only this room talks netlink, nftables and VICI. It never reads an agency's data.
"""
