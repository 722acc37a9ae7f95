"""Data files of the law: lists with their dates, classes, kinds, affairs, procedures, layouts, allowed items.

The package holds nothing but files, so that they are shipped with the wheel; ``chukan.platform.law.tables`` is their
only reader. Each file names its source in its first lines, which begin with ``#``, and says what in it is illustrative.
"""
