"""Data files of the directory: bodies, wards of designated cities, and the agencies that no rule yields.

The package holds nothing but files, so that they are shipped with the wheel; ``chukan.tenants.bodies`` is their only
reader. Each file names its source in its first lines, which begin with ``#``.
"""
