"""The settings of the servers that run on this machine: durable, small, and silent about what they hold (``QUIET``)."""

from collections.abc import Mapping
from pathlib import Path

from chukan.replication.quiet import QUIET

_IO_METHOD_SINCE = 18


def server_settings(major: int, hba: Path, socket_dir: str, port: int) -> dict[str, str]:
    """Return postgresql.conf as names and values, for a server of a major version behind one Unix socket."""
    settings = {
        "hba_file": str(hba),
        "listen_addresses": "",
        "unix_socket_directories": socket_dir,
        "unix_socket_permissions": "0700",
        "port": str(port),
        "password_encryption": "scram-sha-256",
        "max_connections": "100",
        "max_locks_per_transaction": "256",  # a cell has thousands of leaves
        "shared_buffers": "64MB",
        "max_wal_size": "512MB",
        "wal_level": "replica",
        "fsync": "on",
        "full_page_writes": "on",
        "restart_after_crash": "off",  # a crash is for whoever watches the server to see
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        **QUIET,
    }
    if major >= _IO_METHOD_SINCE:
        settings["io_method"] = "sync"  # three processes fewer; an idle demo should cost little
    return settings


def as_file(settings: Mapping[str, str]) -> str:
    """Return the text of postgresql.conf, every value quoted."""
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
