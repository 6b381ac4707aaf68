-- Indexes of what a worker asks all the time. Their conditions are those of the statements, which name them: the planner
-- would rather walk all runs of a state and sort them.

-- Runs that wake by themselves. A paused run keeps its instant and would stand before them for ever.
drop index holdfast_runs_due;
create index holdfast_runs_due on holdfast_runs (due_at)
where state in ('scheduled', 'waiting') and due_at is not null;

-- What a claim looks for. It covers the condition, so runs that a worker does not know are passed over in the index alone.
drop index holdfast_runs_ready;
create index holdfast_runs_ready on holdfast_runs (priority desc, number, workflow, state) where state = 'ready';

-- What people ask of runs that a worker holds.
create index holdfast_runs_request on holdfast_runs (worker) where request is not null;
