"""Room ops."""
