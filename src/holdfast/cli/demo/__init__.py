"""`holdfast demo`: an order book goes through flaky services while its worker is killed, and the books are audited.

Four processes' worth of independence, so that the final check means something:

    command ── drive ──┬── provider   a program of its own, standard library only, with its own fsynced ledger
                       └── worker     executes the runs; killed with SIGKILL, started again
            └─ audit       reads ledger and database with plain `json` and `sqlite3`, nothing of Holdfast

`app` holds the workflow and is the part worth reading as an example. `orders` reads the order file, `screen` shows what
happens. Children hold the reading end of a pipe to their parent; its end of file ends them, however the parent dies.
"""
