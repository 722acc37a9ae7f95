"""The simulated systems of an agency, from one place: the client of the agency API and what is built on it.

``AgencyClient`` has a method for each call, ``AddresseeSystem`` acquires linkage codes, ``BusinessSystem`` asks and
collects. Nothing is implemented here.
"""

from chukan.ops.sandbox.agency_client import AgencyClient
from chukan.ops.sandbox.file_calls import digest_of
from chukan.ops.sandbox.systems import AddresseeSystem, BusinessSystem, Entry, Journal
from chukan.ops.sandbox.transport import ClientError, Connection

__all__ = [
    "AddresseeSystem",
    "AgencyClient",
    "BusinessSystem",
    "ClientError",
    "Connection",
    "Entry",
    "Journal",
    "digest_of",
]
