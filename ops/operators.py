"""``chukan operators``: the operators' register (運用者名簿) in force, as everybody is judged by it.

It is a file of the master data, ``operators.csv``: change it by ``chukan master propose`` and ``approve``, two persons
with the role ``security``. Invariant: this module changes nothing.
"""

import datetime as dt
from pathlib import Path

from cyclopts import App

from chukan.clock import to_jst
from chukan.ops import installation as acts
from chukan.ops.installation import Installation
from chukan.ops.operator_gate import register_in_force
from chukan.ops.output import Json, say, table
from chukan.tenants.operator_register import Register

app = App(name="operators", help="Show the operators' register: who may give orders, in which roles.")


@app.command(name="list")
def list_(*, config: Path | None = None, as_json: Json = False) -> None:
    """Show the register in force with its days, and who has which role today.

    Parameters
    ----------
    config
        Settings of any exchange; CHUKAN_SETTINGS names it otherwise.
    as_json
        Print JSON.
    """

    async def act(installation: Installation) -> tuple[Register, dt.date]:
        register = await register_in_force(installation.settings, installation.cells, installation.public)
        return register, to_jst(installation.clock.now()).date()

    register, today = acts.run(config, act)
    told = [
        {
            "name": each.name,
            "roles": sorted(each.roles),
            "first": each.first,
            "last": each.last,
            "in_force": each.in_force(today),
        }
        for each in register.operators
    ]
    rows = [
        [
            each.name,
            " ".join(sorted(each.roles)),
            f"{each.first} – {each.last or ''}",
            "yes" if each.in_force(today) else "",
        ]
        for each in register.operators
    ]
    nobody = "no register yet: whoever holds a certificate named operator.… may do everything that operators may"
    say(told, table("name", "roles", "days", "today", rows=rows) if rows else nobody, as_json=as_json)
