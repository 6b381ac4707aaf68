-- Crashes are counted instead of claims: how often a run's worker died with it since the run last made progress, and how
-- many outcomes it had recorded by the last time. Workers tell which workflows they know.

alter table holdfast_runs rename column claims to crashes;
update holdfast_runs set crashes = 0 where crashes != 0;
alter table holdfast_runs add column crash_progress integer;

-- What a claim looks for: not those that may be what took their workers down. Each worker tries these one at a time.
drop index holdfast_runs_ready;
create index holdfast_runs_ready on holdfast_runs (priority desc, number, workflow, state, crashes)
where state = 'ready' and crashes < 3;
create index holdfast_runs_suspect on holdfast_runs (crashes, number) where state = 'ready' and crashes >= 3;

alter table holdfast_workers add column workflows text not null default '[]';
