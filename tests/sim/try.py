import sys, time, shutil, tempfile, asyncio
from pathlib import Path
from collections import Counter
from tests.sim.simulation import Simulation, tally
from holdfast.testing.crash import _create
folder = Path(tempfile.mkdtemp(dir="/dev/shm")); t=folder/"t.db"
asyncio.run(_create(t))
import os
from tests.sim import simulation
if os.environ.get('NOLOST'):
    o=simulation.Life._fate
    def f(self,b):
        x=o(self,b)
        return ('pass',0) if x[0]=='lost' else x
    simulation.Life._fate=f
a,b=int(sys.argv[1]),int(sys.argv[2]); c=Counter(); t0=time.time(); bad=0
for seed in range(a,b):
    p=folder/f"{seed}.db"; shutil.copyfile(t,p)
    sim=Simulation(seed,p)
    try:
        l=sim.run(); tally(c,l)
    except AssertionError as e:
        bad+=1
        print(str(e) if b-a==1 else str(e).split("\n")[0][:300])
    if b-a==1: print(sim.digest, len(sim.ledger.trace), sim.loop.seconds)
    for f in folder.glob(f"{seed}.db*"): f.unlink()
c={k:v for k,v in c.items() if not k.startswith("reopened")}
print(bad,"bad", round(time.time()-t0,2), c)
shutil.rmtree(folder)
