import asyncio, time, subprocess
from tests.e2e.test_stalled import *
from tests.e2e.test_stalled import _settled
async def test_dbg(talker, cluster_a):
    admin = User(talker)
    server, agent = talker.server().pid, talker.agent("alpha").pid
    asking = await admin.connect()
    await measure(asking, 1.0)
    readers=[]
    for _ in range(10):
        readers += await asyncio.gather(*(stalled(admin) for _ in range(20)))
    with cluster_a.log_file("default", "talker").open("ab") as log:
        for _ in range(4):
            log.write(b"x" * 1023 * KIB + b"\n" * KIB)
    procs = {"server":server,"agent":agent,**{n:p.pid for n,p in cluster_a._processes.items()}}
    import os
    procs["test"]=os.getpid()
    last={n:Usage.of(p).cpu for n,p in procs.items()}
    for i in range(12):
        t=time.monotonic()
        a=await asking.ask("GET","/clusters/alpha/api/v1/namespaces/default")
        t1=time.monotonic()
        await cluster_a.api.get("/api/v1/namespaces/default")
        t2=time.monotonic()
        h=await asking.ask("GET","/healthz")
        t3=time.monotonic()
        now={n:Usage.of(p).cpu for n,p in procs.items()}
        print(f"tunnel {t1-t:.3f} direct {t2-t1:.3f} healthz {t3-t2:.3f} cpu", {n:round(now[n]-last[n],2) for n in now}, [round(Usage.of(p).rss/MIB) for p in (server,agent)], os.getloadavg()[0])
        last=now
        await asyncio.sleep(0.3)
    out=subprocess.run(["ss","-tnpi"],capture_output=True,text=True).stdout
    open("/tmp/iso_ss.txt","w").write(out)
    assert 0
