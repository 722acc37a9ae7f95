"""Room tenants."""
