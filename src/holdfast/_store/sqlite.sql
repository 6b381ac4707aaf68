-- Every statement of the SQLite store, by name. `:now` is always a parameter; no statement reads a clock.

-- name: fence
-- Each batch of a worker asserts this first, in its transaction.
select 1 from holdfast_workers where id = ? and state = 'live';

-- name: next_number
-- A number is never given twice: the run that has the highest may have been removed.
select max(coalesce((select max(number) from holdfast_runs), 0), (select highest from holdfast_numbers)) + 1;

-- name: insert_runs
-- `{rows}` is repeated for multi-row inserts. An id that is taken changes nothing.
insert into holdfast_runs (
    number, id, workflow, state, input, attributes, priority, seed, worker, created_at, due_at, started_at, timeout_us,
    deadline_at
) values {rows} on conflict (id) do nothing;

-- name: run_of_id
select number, workflow, input, state, seed, generation from holdfast_runs where id = ?;

-- name: delete_run
-- History and attributes follow by cascade. Only ended runs, ever.
delete from holdfast_runs where id = ? and state in ('succeeded', 'failed', 'cancelled');

-- name: insert_attributes
insert into holdfast_attributes (key, value, run) values {rows};

-- name: insert_entries
-- An outcome replaces what is pending; an outcome that is recorded is never overwritten.
insert into holdfast_history (
    run, seq, after, ordinal, kind, name, state, input, output, error, attempts, started_at, finished_at, due_at
) values {rows}
on conflict (run, seq) do update set
    ordinal = excluded.ordinal, state = excluded.state, output = excluded.output, error = excluded.error,
    attempts = excluded.attempts, started_at = excluded.started_at, finished_at = excluded.finished_at,
    due_at = excluded.due_at
where holdfast_history.state = 'pending'
    -- The same outcome again: its acknowledgement was lost on the way.
    or (holdfast_history.ordinal is excluded.ordinal and holdfast_history.state = excluded.state
        and holdfast_history.output is excluded.output and holdfast_history.error is excluded.error);

-- name: end_run
-- `{rows}`: number, worker, state, output, error, failed_at, ended_at.
update holdfast_runs set
    state = v.column3, output = v.column4, error = v.column5, failed_at = v.column6, ended_at = v.column7,
    worker = null, request = null, due_at = null, crashes = 0
from (values {rows}) as v
where number = v.column1 and worker = v.column2 and holdfast_runs.state = 'running';

-- name: close_pending
update holdfast_history set state = 'cancelled' where run = ? and state = 'pending';

-- name: continue_run
-- A new generation starts when it is claimed again; its claim sets the start.
update holdfast_runs set
    state = 'ready', input = ?3, seed = ?4, generation = generation + 1, worker = null, started_at = null,
    crashes = 0, failed_at = null
where number = ?1 and worker = ?2 and state = 'running';

-- name: delete_history
delete from holdfast_history where run = ?;

-- name: park_run
-- `{rows}`: number, worker, due_at, stopping. A request that the run has not been told of wakes it at once.
update holdfast_runs set
    state = iif(request is null or (request = 'cancel' and v.column4), 'waiting', 'ready'),
    due_at = iif(request is null or (request = 'cancel' and v.column4), v.column3, null),
    worker = null, crashes = 0
from (values {rows}) as v
where number = v.column1 and worker = v.column2 and state = 'running';

-- name: release_run
update holdfast_runs set state = 'ready', worker = null
where number = ?1 and worker = ?2 and state = 'running';

-- name: block_run
-- `worker` keeps who found it blocked, so that another one may try.
-- A cancellation that was asked for meanwhile is carried out: there is no code to tell. A pause is kept for whoever finds
-- that it has the code: who asked for it was told that it stands.
update holdfast_runs set
    state = case when request = 'cancel' then 'cancelled' else 'blocked' end,
    ended_at = case when request = 'cancel' then ?5 end,
    worker = case when request = 'cancel' then null else worker end,
    reason = ?3, error = ?4, request = case when request = 'pause' then 'pause' end
where number = ?1 and worker = ?2 and state = 'running';

-- name: pause_run
-- What was asked for meanwhile wins: a cancellation wakes the run, a resumption lets it go on.
update holdfast_runs set
    state = case when request = 'pause' then 'paused' else 'ready' end,
    request = case when request = 'cancel' then 'cancel' end, worker = null, crashes = 0
where number = ?1 and worker = ?2 and state = 'running';

-- name: request_row
select number, state, worker, request, started_at, failed_at from holdfast_runs where id = ?;

-- name: cancel_now
update holdfast_runs set state = 'cancelled', ended_at = ?2, due_at = null, worker = null, request = null, reason = null
where number = ?1;

-- name: request_of_owner
update holdfast_runs set request = ?2 where number = ?1;

-- name: wake_with_request
update holdfast_runs set state = 'ready', due_at = null, worker = null, request = ?2, reason = null, error = null
where number = ?1;

-- name: pause_now
-- `due_at` stays: a scheduled run that is resumed early waits on.
update holdfast_runs set state = 'paused', worker = null where number = ?1;

-- name: resume_run
-- A run that had ended gets its time anew, and so does one whose deadline has passed while it stood aside: it would die
-- at once. A deadline that is ahead stands.
update holdfast_runs set
    state = case when started_at is null and due_at > ?2 then 'scheduled' else 'ready' end,
    due_at = case when started_at is null and due_at > ?2 then due_at end,
    worker = null, request = null, reason = null, error = null, output = null, crashes = 0, ended_at = null,
    failed_at = null,
    deadline_at = case
        when timeout_us is null or deadline_at is null or (ended_at is null and deadline_at > ?2) then deadline_at
        else ?2 + timeout_us
    end
where number = ?1;

-- name: cancel_ordinal
-- Where the run was told to stop; what it did from there on was clean-up.
select min(ordinal) from holdfast_history where run = ? and kind in ('cancel', 'deadline');

-- name: drop_entries_from
-- Goes back to before delivery ?2: that outcome, and all that was called after it was seen.
delete from holdfast_history where run = ?1 and (ordinal = ?2 or after >= ?2);

-- name: reopen_pending
update holdfast_history set state = 'pending' where run = ? and state = 'cancelled' and ordinal is null;

-- name: fork_source
select number, workflow, input, attributes, priority, seed, started_at, timeout_us from holdfast_runs where id = ?;

-- name: entry_after
select after from holdfast_history where run = ? and seq = ?;

-- name: fork_run
insert into holdfast_runs (
    number, id, workflow, state, input, attributes, priority, seed, created_at, started_at, timeout_us, deadline_at,
    forked_from
) values (?, ?, ?, 'ready', ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: fork_history
-- What was called before entry ?3, and what had come from outside before it.
insert into holdfast_history (
    run, seq, after, ordinal, kind, name, state, input, output, error, attempts, started_at, finished_at, due_at
)
select ?2, seq, after, ordinal, kind, name, state, input, output, error, attempts, started_at, finished_at, due_at
from holdfast_history
where run = ?1 and state in ('succeeded', 'failed') and ((seq between 0 and ?3 - 1) or (seq < 0 and ordinal <= ?4));

-- name: fork_entry
insert into holdfast_history (
    run, seq, after, ordinal, kind, name, state, input, output, attempts, started_at, finished_at
)
select ?2, seq, after, ordinal, kind, name, 'succeeded', input, ?4, attempts, started_at, finished_at
from holdfast_history where run = ?1 and seq = ?3;

-- name: fork_attributes
insert into holdfast_attributes (key, value, run) select key, value, ?2 from holdfast_attributes where run = ?1;

-- name: bury_worker
update holdfast_workers set state = 'dead', lease_until = ?2 where id = ?1 and state = 'live';

-- name: give_back_runs
-- What a worker that leaves still holds. Leaving is no crash.
update holdfast_runs indexed by holdfast_runs_worker set state = 'ready', worker = null
where worker = ? and state = 'running';

-- name: orphan_runs
-- ?1 worker, ?2 now, ?3 poison after, ?4 error. A crash counts from one again when an outcome or an attempt was recorded
-- since the last.
-- A poison run keeps its worker, the one that it took down last; a cancellation that was asked for is carried out.
-- Materialised, or the progress would be counted once for every column.
update holdfast_runs set
    crashes = orphan.crashes_now, crash_progress = orphan.progress,
    state = case
        when ?3 is null or orphan.crashes_now < ?3 then 'ready'
        when request = 'cancel' then 'cancelled'
        else 'blocked'
    end,
    worker = case when ?3 is null or orphan.crashes_now < ?3 or request = 'cancel' then null else worker end,
    reason = case when orphan.crashes_now >= ?3 and request is not 'cancel' then 'poison' end,
    error = case when orphan.crashes_now >= ?3 and request is not 'cancel' then ?4 end,
    ended_at = case when orphan.crashes_now >= ?3 and request = 'cancel' then ?2 end,
    request = case when orphan.crashes_now >= ?3 then null else request end
from (
    with held as materialized (
        select number as run, crashes as crashes_then, crash_progress as progress_then, (
            select count(ordinal) + coalesce(sum(attempts), 0) from holdfast_history where holdfast_history.run = holdfast_runs.number
        ) as progress
        from holdfast_runs indexed by holdfast_runs_worker where worker = ?1 and state = 'running'
    )
    select run, progress, case when progress_then is progress then crashes_then + 1 else 1 end as crashes_now from held
) as orphan
where number = orphan.run;

-- name: poisoned_runs
select id, workflow from holdfast_runs where worker = ? and state = 'blocked' and reason = 'poison' order by number;

-- name: clear_run
-- It has lived on where it was suspected.
update holdfast_runs set crashes = 0 where number = ?1 and worker = ?2 and state = 'running';

-- name: blocked_runs
-- Of these workflows, found not to match by another worker than ?1, and not tried by this one (?3) yet.
select json_group_array(number) from (
    select number from holdfast_runs
    where state = 'blocked' and reason in ('nondeterminism', 'not-decodable') and worker is not ?1
        and workflow in (select value from json_each(?2)) and number not in (select value from json_each(?3))
        and (crashes >= 3) = ?5
    order by number limit ?4
);

-- name: unblock_runs
update holdfast_runs set state = 'ready', reason = null, error = null, worker = null
where number in (select value from json_each(?1));

-- name: wake_due
-- Bounded, so that a million timers due at once do not hold the write lock. The condition is that of the index, which
-- is named because the planner would rather sort all that wait.
update holdfast_runs set state = 'ready', due_at = null
where number in (
    select number from holdfast_runs indexed by holdfast_runs_due
    where due_at <= ?1 and due_at is not null and state in ('scheduled', 'waiting') order by due_at limit ?2
);

-- name: ready_count
-- No further than the claim would go.
select count(*) from (
    select 1 from holdfast_runs indexed by holdfast_runs_ready
    where state = 'ready' and crashes < 3 and workflow in (select value from json_each(?1)) limit ?2
);

-- name: claim
-- One row, a JSON array of numbers: fetching row by row would hand the interpreter lock over for each.
select json_group_array(number) from (
    select number from holdfast_runs indexed by holdfast_runs_ready
    where state = 'ready' and crashes < 3 and workflow in (select value from json_each(?1))
    order by priority desc, number limit ?2
);

-- name: claim_suspect
-- The run that most likely is innocent first: so the fewest crashes stand between it and the others.
select json_group_array(number) from (
    select number from holdfast_runs indexed by holdfast_runs_suspect
    where state = 'ready' and crashes >= 3 and workflow in (select value from json_each(?1))
    order by crashes, number limit 1
);

-- name: claim_runs
-- The deadline starts with the first claim.
update holdfast_runs set
    state = 'running', worker = ?2, started_at = coalesce(started_at, ?3),
    deadline_at = coalesce(deadline_at, case when started_at is null then ?3 + timeout_us end)
where number in (select value from json_each(?1));

-- name: claimed_rows
-- As bytes: a text in it may be damaged.
select cast(json_group_array(json_array(
    number, id, workflow, input, seed, generation, crashes, request, created_at, started_at, deadline_at,
    json(iif(exists (select 1 from holdfast_history where run = holdfast_runs.number), 'true', 'false'))
)) as blob) from holdfast_runs where number in (select value from json_each(?1));

-- name: histories
-- Every entry of the given runs, as one JSON array, in any order: sorting here would copy every row once more.
select cast(json_group_array(json_array(
    run, seq, after, ordinal, kind, name, state, input, output, error, attempts, started_at, finished_at, due_at
)) as blob) from holdfast_history where run in (select value from json_each(?));

-- name: detail
select number, id, workflow, state, input, output, error, reason, attributes, priority, worker, request, generation,
    crashes, forked_from, created_at, due_at, started_at, ended_at, deadline_at
from holdfast_runs where id = ?;

-- name: list_runs
-- `{numbers}` is a search in the order of the page (see `sqlite_search.py`): only a page of rows is fetched and sorted.
select number, id, workflow, state, input, output, error, reason, attributes, priority, worker, request, generation,
    crashes, forked_from, created_at, due_at, started_at, ended_at, deadline_at
from holdfast_runs not indexed where number in (select number from ({numbers} limit :limit)) order by {order};

-- name: count_runs
select count(*) from (select number from ({numbers} limit :limit));

-- name: workflows
-- One look into the index for each workflow, not one for each run.
with recursive known (name) as (
    select min(workflow) from holdfast_runs
    union all
    select (select min(workflow) from holdfast_runs where workflow > known.name) from known where known.name is not null
    limit :limit
)
select name from known where name is not null;

-- name: attribute_keys
-- One look into the index for each key.
with recursive known (name) as (
    select min(key) from holdfast_attributes
    union all
    select (select min(key) from holdfast_attributes where key > known.name) from known where known.name is not null
    limit ?
)
select name from known where name is not null;

-- name: attribute_keys_among
select asked.value as name from json_each(?) as asked
where exists (select 1 from holdfast_attributes where key = asked.value);

-- name: state_counts
-- A walk through the index alone: 60 ms for a million runs.
select workflow, state, count(*) as runs from holdfast_runs indexed by holdfast_runs_workflow
group by workflow, state order by workflow, state;

-- name: ended_counts
-- Counting a range of an index costs a quarter of grouping it.
select asked.value as workflow, ends.value as state, (
    select count(*) from holdfast_runs indexed by holdfast_runs_ended
    where workflow = asked.value and state = ends.value and ended_at >= ?2
) as runs
from json_each(?1) as asked cross join json_each('["succeeded", "failed", "cancelled"]') as ends
where runs > 0;

-- name: durations
-- The latest first, so that the sample is of what happens now; two walks in order are merged.
select ended_at - started_at as took from (
    select ended_at, started_at from holdfast_runs indexed by holdfast_runs_ended
    where workflow = :workflow and state = 'succeeded' and ended_at >= :since
    union all
    select ended_at, started_at from holdfast_runs indexed by holdfast_runs_ended
    where workflow = :workflow and state = 'failed' and ended_at >= :since
    order by ended_at desc limit :limit
) where started_at is not null;

-- name: ended_among
-- A run that ended may have been removed before anybody looked.
select asked.value as id, (select state from holdfast_runs where id = asked.value) as ended from json_each(?) as asked
where ended is null or ended in ('succeeded', 'failed', 'cancelled');

-- name: requests_of_worker
select number, request from holdfast_runs indexed by holdfast_runs_request
where worker = ? and state = 'running' and request is not null;

-- name: next_due
select min(due_at) from holdfast_runs indexed by holdfast_runs_due
where due_at is not null and state in ('scheduled', 'waiting');

-- name: has_ready
select exists (
    select 1 from holdfast_runs indexed by holdfast_runs_ready
    where state = 'ready' and crashes < 3 and workflow in (select value from json_each(?))
);

-- name: has_suspect
select exists (
    select 1 from holdfast_runs indexed by holdfast_runs_suspect
    where state = 'ready' and crashes >= 3 and workflow in (select value from json_each(?))
);

-- name: has_blocked
select exists (
    select 1 from holdfast_runs
    where state = 'blocked' and reason in ('nondeterminism', 'not-decodable') and worker is not ?1
        and workflow in (select value from json_each(?2)) and number not in (select value from json_each(?3))
        and (crashes >= 3) = ?4
);

-- name: register_worker
insert into holdfast_workers (id, host, pid, state, started_at, lease_until, workflows)
values (?, ?, ?, 'live', ?, ?, ?);

-- name: renew_lease
update holdfast_workers set lease_until = ?2, workflows = coalesce(?3, workflows) where id = ?1 and state = 'live';

-- name: leave
update holdfast_workers set state = 'left', lease_until = ?2 where id = ?1 and state = 'live';

-- name: forget_workers
-- Rows of workers that are gone are kept for a while, for whoever looks into what happened.
delete from holdfast_workers where state != 'live' and lease_until < ?;

-- name: live_workers
select id, lease_until from holdfast_workers where state = 'live';

-- name: workers
select id, host, pid, state, started_at, lease_until, workflows,
    (select count(*) from holdfast_runs where worker = holdfast_workers.id and state = 'running') as runs
from holdfast_workers order by started_at, id;

-- name: ended_groups
-- A jump in the index from each workflow to the next, then one look for each state: the cost is that of the workflows,
-- not of the runs.
with recursive workflows (name) as (
    select min(workflow) from holdfast_runs where ended_at is not null
    union all
    select (select min(workflow) from holdfast_runs where ended_at is not null and workflow > workflows.name)
    from workflows where workflows.name is not null
),
groups (workflow, state, oldest) as (
    select name, ends.column1, (
        select min(ended_at) from holdfast_runs
        where workflow = workflows.name and state = ends.column1 and ended_at is not null
    )
    from workflows, (values ('cancelled'), ('failed'), ('succeeded')) as ends
    where name is not null
)
select workflow, state, oldest from groups where oldest is not null order by workflow, state;

-- name: count_ended
select count(*) from holdfast_runs
where workflow = ?1 and state = ?2 and ended_at < ?3 and state in ('succeeded', 'failed', 'cancelled');

-- name: count_ended_entries
-- Of the runs that are pruned first.
select count(*) from holdfast_history where run in (
    select number from holdfast_runs
    where workflow = ?1 and state = ?2 and ended_at < ?3 and state in ('succeeded', 'failed', 'cancelled')
    order by ended_at, number limit ?4
);

-- name: prune_candidates
-- One row, a JSON array of numbers, each with an upper bound of its entries: their numbers leave gaps, but do not repeat.
select json_group_array(json_array(number, span)) from (
    select number, coalesce(
        (select max(seq) from holdfast_history where run = holdfast_runs.number)
        - (select min(seq) from holdfast_history where run = holdfast_runs.number) + 1, 0
    ) as span
    from holdfast_runs
    where workflow = ?1 and state = ?2 and ended_at < ?3 and state in ('succeeded', 'failed', 'cancelled')
    order by ended_at, number limit ?4
);

-- name: prune_histories
-- Before their runs: the cascade would do the same, but row by row.
delete from holdfast_history where run in (
    select number from holdfast_runs
    where number in (select value from json_each(?1)) and +state in ('succeeded', 'failed', 'cancelled')
);

-- name: prune_numbers
-- Before their runs: remembers the highest number of all if it is among them. Maybe a higher one went before.
update holdfast_numbers set highest = max(highest, (select max(number) from holdfast_runs))
where (select max(number) from holdfast_runs) in (select value from json_each(?1));

-- name: prune_runs
-- Attributes follow by cascade. Only ended runs, ever. (`+`: look the run up by its number.)
delete from holdfast_runs
where number in (select value from json_each(?1)) and +state in ('succeeded', 'failed', 'cancelled');

-- name: prune_mark
-- A long history goes in slices, see `sqlite_prune.py`. The id becomes one that nobody can ask for.
update holdfast_runs set id = ?2 || number || ' ' || id, reason = 'pruning'
where number = ?1 and state in ('succeeded', 'failed', 'cancelled');

-- name: prune_attributes
delete from holdfast_attributes where run = ?;

-- name: prune_marked
select min(number) from holdfast_runs where id >= ?1 and id < ?2;

-- name: prune_slice
delete from holdfast_history
where rowid in (select rowid from holdfast_history where run = ?1 order by seq limit ?2);

-- name: unfinished_numbers
-- Of the index on (state, number) alone. One number each, so a million are 8 MB.
select number from holdfast_runs
where state in ('scheduled', 'ready', 'running', 'waiting', 'paused', 'blocked') order by number;

-- name: whole_run
-- Every column that this database has: for reading one of an older release, and for exports.
select * from holdfast_runs where number = ?;

-- name: whole_history
select * from holdfast_history where run = ? order by seq;

-- name: whole_attributes
select key, value from holdfast_attributes where run = ? order by key, value;

-- name: import_run
-- `{columns}` are checked to be columns of this table.
insert into holdfast_runs ({columns}) values ({values});

-- name: import_entry
insert into holdfast_history ({columns}) values ({values});

-- name: import_attribute
insert into holdfast_attributes (key, value, run) values (?, ?, ?);
