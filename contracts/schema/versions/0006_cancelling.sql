-- An owner wants a running command stopped. Its worker asks with each heartbeat; one that takes it over sees it too.

alter table commands add column cancel_requested_at timestamptz;
create index commands_to_cancel on commands (holder)
    where cancel_requested_at is not null and state in ('running', 'retrying');
