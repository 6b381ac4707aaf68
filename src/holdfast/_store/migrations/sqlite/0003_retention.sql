-- What pruning looks for: of a workflow's runs that ended in a state, the oldest; and durations over a window.
create index if not exists holdfast_runs_ended on holdfast_runs (workflow, state, ended_at) where ended_at is not null;

-- The highest number among runs that were removed: a number is never given twice. One row.
create table holdfast_numbers (
    highest integer not null
) strict;
insert into holdfast_numbers (highest) values (0);
