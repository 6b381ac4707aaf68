-- Listings are newest first by `created_at`: each of these answers a page of them, and a range of time, in order.
drop index holdfast_runs_state;
create index holdfast_runs_state on holdfast_runs (state, created_at);
create index holdfast_runs_workflow on holdfast_runs (workflow, state, created_at);
-- Few runs have these: the indexes cost nothing where there is nothing.
create index holdfast_runs_reason on holdfast_runs (reason) where reason is not null;
create index holdfast_runs_forked on holdfast_runs (forked_from) where forked_from is not null;
