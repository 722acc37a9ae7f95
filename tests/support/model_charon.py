"""A model of charon: what it has after some steps of a plan, each carried out as it is said."""

from collections.abc import Iterable

from chukan.vpn.ipsec.model import (
    Actual,
    DropSecret,
    Gateway,
    PutConnection,
    PutSecret,
    Step,
    Terminate,
    TerminateOne,
    Unload,
    expected,
)


def carried_out(actual: Actual, steps: Iterable[Step], gateway: Gateway) -> Actual:
    """Return what a charon at this gateway has after the steps, one by one."""
    connections, secrets, associations = dict(actual.connections), set(actual.secrets), list(actual.associations)
    for step in steps:
        match step:
            case Unload(name):
                connections.pop(name, None)
            case DropSecret(name):
                secrets.discard(name)
            case Terminate(name):
                associations = [one for one in associations if one.name != name]
            case TerminateOne(number):
                associations = [one for one in associations if one.number != number]
            case PutSecret(wanted):
                secrets.add(wanted.name)
            case PutConnection(wanted):
                connections[wanted.name] = expected(wanted, gateway)
    return Actual(connections=connections, secrets=frozenset(secrets), associations=tuple(associations))
