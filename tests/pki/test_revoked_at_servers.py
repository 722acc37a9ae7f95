"""A revoked certificate at a real PostgreSQL and a real etcd, run as ``render`` says, with the lists that ``pki`` makes."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import asyncpg
import pytest
import uvloop

from chukan.clock import SystemClock
from chukan.ops.certificates import read_certificates
from chukan.platform.revocation_watch import RevocationLists
from chukan.replication.revoked import refusing
from chukan.settings import Cell
from chukan.replication.primary import Cells
from chukan.errors import Problem
from chukan.tests.support import tls_scan
from chukan.tests.support.tls_world import World, until

