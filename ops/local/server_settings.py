"""The settings of the servers that run on this machine: durable, small, and silent about what they hold.

Invariant: what the server may write into its log is its own condition, never a statement, a parameter, a detail or the
text of an error, for all of these quote values.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_IO_METHOD_SINCE = 18

QUIET: Mapping[str, str] = MappingProxyType(
    {
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] ",
        "log_min_messages": "log",  # ERROR ranks below LOG here; an error's text quotes values
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",  # no DETAIL, HINT, QUERY or CONTEXT
        "log_statement": "none",
        "log_duration": "off",
        "log_min_duration_statement": "-1",
        "log_min_duration_sample": "-1",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_lock_waits": "off",
        "log_checkpoints": "off",
        "log_autovacuum_min_duration": "-1",
        "log_temp_files": "-1",
        "debug_print_parse": "off",
        "debug_print_rewritten": "off",
        "debug_print_plan": "off",
    }
)


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
