-- What pruning looks for: of a workflow's runs that ended in a state, the oldest; and durations over a window.
create index if not exists holdfast_runs_ended on holdfast_runs (workflow, state, ended_at) where ended_at is not null;
