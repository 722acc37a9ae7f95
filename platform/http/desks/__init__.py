"""Where an agency handles its own papers: copies, loads and records, in its own partition through door 1 (DESIGN §10).

A desk checks what the law demands of a copy, opens the agency's partition, and lets ``tenants`` do the rest. It speaks
the wire's structs and knows no HTTP; what it may do for whom was decided before it is called.
"""
