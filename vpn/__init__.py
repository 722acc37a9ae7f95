"""Room vpn."""
