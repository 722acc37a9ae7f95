"""``chukan demo``."""
