-- Instants are integer microseconds UTC, payloads are JSON text. docs/schema.md describes every column.

create table holdfast_runs (
    number integer primary key,
    id text not null unique,
    workflow text not null,
    state text not null check (state in (
        'scheduled', 'ready', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'paused', 'blocked'
    )),
    input text not null,
    output text,
    error text,
    reason text,
    attributes text,
    priority integer not null default 0,
    worker text,
    request text check (request in ('cancel', 'pause')),
    seed integer not null,
    generation integer not null default 0,
    claims integer not null default 0,
    failed_at integer,
    forked_from text,
    created_at integer not null,
    due_at integer,
    started_at integer,
    ended_at integer,
    timeout_us integer,
    deadline_at integer
) strict;

-- What a claim looks for: highest priority first, then first in, first out.
create index holdfast_runs_ready on holdfast_runs (priority desc, number) where state = 'ready';
-- What the timer service looks for.
create index holdfast_runs_due on holdfast_runs (due_at) where due_at is not null;
-- What a worker holds, and what a dead one leaves behind.
create index holdfast_runs_worker on holdfast_runs (worker) where worker is not null;
-- Listings and counts.
create index holdfast_runs_state on holdfast_runs (state, number);

create table holdfast_history (
    run integer not null references holdfast_runs (number) on delete cascade,
    seq integer not null,
    after integer not null,
    ordinal integer,
    -- The common value first: an `in` alone costs 0.7 us a row, and there are many rows.
    kind text not null check (kind = 'step' or kind in ('timer', 'patch', 'cancel', 'deadline')),
    name text not null,
    state text not null check (state = 'succeeded' or state in ('pending', 'failed', 'cancelled')),
    input text,
    output text,
    error text,
    attempts integer not null,
    started_at integer,
    finished_at integer,
    due_at integer,
    unique (run, seq)
) strict;

create table holdfast_attributes (
    key text not null,
    value any not null,
    run integer not null references holdfast_runs (number) on delete cascade,
    primary key (key, value, run)
) strict, without rowid;
create index holdfast_attributes_run on holdfast_attributes (run);

create table holdfast_workers (
    id text primary key,
    host text not null,
    pid integer not null,
    state text not null check (state in ('live', 'left', 'dead')),
    started_at integer not null,
    lease_until integer not null
) strict, without rowid;
