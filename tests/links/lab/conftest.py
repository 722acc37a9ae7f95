"""A lab with links needs network namespaces, and so root: anybody else does not collect what is here."""

from chukan.ops.local.machine import is_root

collect_ignore = [] if is_root() else ["test_wires_links.py", "test_lab_links.py", "test_centre_loss_links.py"]
