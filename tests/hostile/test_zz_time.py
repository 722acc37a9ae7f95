
import time, pytest
from chukan.tests.support.nation import running
from .conftest import ServedSite, clients, ASKS
async def test_time(embedded_server, tmp_path):
    from chukan.tests.support.nation import World
    t=time.monotonic()
    def lap(n):
        nonlocal t
        print("LAP", n, round(time.monotonic()-t,2)); t=time.monotonic()
    w=World(tmp_path, embedded_server)
    await w.start(); lap("start")
    clients(w,(ASKS,)); await w.publish(); lap("publish")
    await w.sites.pop("east").stop(); lap("east stop")
    s=ServedSite(w,"east"); lap("made"); await s.start(); lap("served")
    p=await w.person(ASKS, "9901011002000001"); lap("person")
    sv=s.server
    import asyncio
    sv._drain.begin()
    await sv._agency_side.close(1.0); lap("agency close")
    await sv._network_side.close(1.0); lap("network close")
    await s.stop(); lap("server stop")
    x=w.sites["west"]
    await x.listener.stop(); lap("west listener")
    await x.exchange.stop(); lap("west exchange")
    await x.peer.close(); await x.cells.close(); lap("west cells")
    await w.registry.close(); lap("registry")
    await w.network_listener.stop(); lap("network listener")
    await w.network.stop(); lap("network")
    admin = await w.admin("postgres")
    for database in w.databases.values():
        await admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    await admin.close(); lap("drop")
