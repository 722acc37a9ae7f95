"""The settings by which a PostgreSQL server is silent about what it holds.

Invariant: what the server may write into its log is its own condition, never a statement, a parameter, a detail or the
text of an error, for all of these quote values.
"""

from collections.abc import Mapping
from types import MappingProxyType

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
