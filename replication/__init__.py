"""Room replication."""
