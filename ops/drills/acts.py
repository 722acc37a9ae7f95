"""Which acts of a stage the sentences of a scenario need: asked before a drill begins, never found out in the middle.

An act is named as the stage's method. Beside it stands on whom, as far as the sentence says it; who leads is known only
when the drill runs, so that there only the part of the name before the hyphen is told.

Pure: nothing here touches an installation.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from chukan.ops.drills.scenario import Scenario

ACTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "kill_postgres": (("kill", "postgres"),),
    "kill_node": (("kill", "patroni"), ("kill", "postgres")),
    "freeze_node": (("freeze", "patroni"), ("freeze", "postgres")),
    "freeze_patroni": (("freeze", "patroni"),),
    "kill": (("kill", "{process}"),),
    "freeze": (("freeze", "{process}"),),
    "drain": (("stop", "{process}"),),
    "restart": (("stop", "{process}"),),
    "restart_nodes": (("stop", "patroni"),),
    "lose_centre": (("lose_centre", "{centre}"),),
    "cut": (("cut", "{centre}"),),
    "isolate": (("isolate", "{centre}"),),
    "fill_disk": (("fill_disk", ""),),
    "lose_gateway": (("lose_gateway", "{centre}"),),
}
"""By the verb of a sentence; what undoes an act is possible wherever the act is (``replication.site_drills``)."""


def acts(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Yield the acts that a scenario needs, each with its object."""
    for step in (*scenario.given, *scenario.when):
        for act, target in ACTS.get(step.verb, ()):
            yield act, target.format(**step.words)
