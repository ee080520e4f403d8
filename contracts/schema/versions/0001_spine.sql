-- Postgres is the truth. Times are timestamptz; a "day" is a UTC date and only chooses the partition.

create sequence token_seq;

-- Identity. Unpartitioned, so that an id stays unique over all partitions; pruned after the retention.
create table command_keys (
    publisher   text  not null,
    id          uuid  not null,
    fingerprint bytea not null,
    day         date  not null default (now() at time zone 'utc')::date,
    primary key (publisher, id)
);
create index command_keys_by_day on command_keys (day);

--  queued --> running --> succeeded | failed | expired | indeterminate
--    |         |   ^
--    |         v   |
--    |       retrying --> expired | cancelled
--    `--> cancelled | expired
create table commands (
    publisher       text        not null,
    id              uuid        not null,
    day             date        not null,
    kind            text        not null,
    owner           text        not null,
    state           text        not null check (state in
        ('queued', 'running', 'retrying', 'succeeded', 'failed', 'cancelled', 'expired', 'indeterminate')),
    attempt         integer     not null default 0,
    crashes         integer     not null default 0,   -- claims that ended with their worker
    alone           integer     not null default 0,   -- runs with nothing else in flight, after several crashes
    token           bigint,                           -- fences late writes: the newest claim's
    holder          uuid,                             -- the incarnation that runs it
    repeatable      boolean     not null default true,
    routing_key     text        not null,
    reply_to        text,
    correlation_id  text,
    traceparent     text,
    priority        text,
    payload         text        not null,             -- exact bytes, so that it can be published again
    accepted_at     timestamptz not null,
    deadline_at     timestamptz not null,
    started_at      timestamptz,
    finished_at     timestamptz,
    retry_at        timestamptz,
    republished     integer     not null default 0,
    error_code      text,
    result          text,                             -- exact bytes of the reply
    replay_of       uuid,
    primary key (publisher, id, day)
) partition by range (day);
create index commands_by_owner on commands (owner, accepted_at desc, id);
create index commands_open on commands (deadline_at) where state in ('queued', 'retrying', 'running');
create index commands_retrying on commands (retry_at) where state = 'retrying';
create index commands_running on commands (started_at) where state = 'running';

create table attempts (
    publisher        text        not null,
    id               uuid        not null,
    day              date        not null,
    attempt          integer     not null,
    token            bigint      not null,
    worker           text        not null,
    target           text,                            -- provider/model or device serial
    started_at       timestamptz not null,
    duration_seconds double precision not null,
    outcome          text        not null,
    error_code       text,
    error_message    text,
    tokens_in        bigint,
    tokens_out       bigint,
    cost_usd         numeric(18, 9),
    primary key (publisher, id, token, day)
) partition by range (day);

-- A relay that succeeds at once has no row in attempts: its effect is the transaction, and commands says all there is.

create table workers (
    incarnation  uuid primary key,
    pool         text        not null,
    host         text        not null,
    pid          integer     not null,
    version      text        not null,
    metrics_port integer     not null,
    started_at   timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    stopped_at   timestamptz
) with (fillfactor = 50);

-- Results and follow-up commands to publish; a row leaves when the broker has confirmed it.
create table outbox (
    token          bigint      not null,
    part           smallint    not null,              -- 0 is the result, follow-ups count from 1
    publisher      text        not null,
    id             uuid        not null,
    kind           text        not null,
    status         text,                              -- of a result; null for a follow-up command
    owner          text        not null,
    reply_to       text,
    correlation_id text,
    traceparent    text,
    body           text        not null,
    accepted_at    timestamptz not null,
    deadline_at    timestamptz not null,
    created_at     timestamptz not null default clock_timestamp(),
    not_before     timestamptz not null default clock_timestamp(),
    tries          integer     not null default 0,
    primary key (token, part)
);
create index outbox_due on outbox (not_before);

create table conversations (
    owner      text        not null,
    id         text        not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (owner, id)
);

create table messages (
    publisher       text        not null,
    command_id      uuid        not null,
    position        smallint    not null,             -- a command may record several lines
    owner           text        not null,
    conversation_id text        not null,
    sender          text        not null,
    text            text        not null,
    metadata        jsonb       not null,
    sent_at         timestamptz not null,
    accepted_at     timestamptz not null,
    primary key (publisher, command_id, position)
);
create index messages_by_conversation on messages (owner, conversation_id, accepted_at, command_id, position);

create table targets (
    id              uuid        primary key default gen_random_uuid(),
    owner           text        not null,
    name            text        not null,
    url             text        not null,
    secret          text        not null,             -- signs deliveries (Standard Webhooks), so it is kept as it is
    conversation_id text,                             -- null: every conversation of the owner
    created_at      timestamptz not null default clock_timestamp(),
    disabled_at     timestamptz,
    unique (owner, name)
);

create table deliveries (
    seq             bigint      generated always as identity primary key,
    target_id       uuid        not null references targets (id),
    owner           text        not null,
    conversation_id text        not null,
    publisher       text        not null,
    command_id      uuid        not null,
    position        smallint    not null,
    accepted_at     timestamptz not null,
    state           text        not null default 'pending' check (state in ('pending', 'delivered', 'abandoned')),
    tries           integer     not null default 0,
    not_before      timestamptz not null default clock_timestamp(),
    finished_at     timestamptz,
    last_error      text,
    unique (target_id, publisher, command_id, position)
);
create index deliveries_in_order on deliveries (target_id, conversation_id, accepted_at, seq) where state = 'pending';
create index deliveries_due on deliveries (not_before) where state = 'pending';
create index deliveries_finished on deliveries (finished_at) where state <> 'pending';

create table devices (
    serial          text        primary key,          -- the phone's own; its transport's name until it was ready once
    host            text        not null,             -- adb server
    transport       text        not null,             -- what that server calls it
    state           text        not null,
    hint            text,
    model           text,
    android_version text,
    battery_percent integer,
    screen          text,
    seen_at         timestamptz not null,
    updated_at      timestamptz not null default clock_timestamp()
);

create table artifacts (
    sha256       text        primary key,
    content_type text        not null,
    size_bytes   bigint      not null,
    content      bytea       not null,
    created_at   timestamptz not null default clock_timestamp()
);
alter table artifacts alter column content set storage external;  -- pictures do not compress twice

create table artifact_owners (
    sha256     text not null references artifacts (sha256) on delete cascade,
    owner      text not null,
    publisher  text not null,
    command_id uuid not null,
    primary key (sha256, owner, publisher, command_id)
);

create table api_keys (
    id          text        primary key,
    owner       text        not null,
    secret_hash bytea       not null,
    label       text        not null default '',
    created_at  timestamptz not null default clock_timestamp(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);

create table dead_letters (
    seq         bigint      generated always as identity primary key,
    at          timestamptz not null default clock_timestamp(),
    reason      text        not null,
    message     text        not null,
    publisher   text,
    message_id  text,
    type        text,
    queue       text        not null,
    routing_key text,
    reply_to    text,
    headers     jsonb       not null default '{}',
    body        bytea       not null,
    replayed_as uuid
);
create index dead_letters_by_time on dead_letters (at);
create index dead_letters_by_message on dead_letters (publisher, message_id);

-- A queue found missing: commands recorded for it and not finished are published again (workers absorb duplicates).
create table queue_losses (
    seq        bigint      generated always as identity primary key,
    queue      text        not null,
    noticed_at timestamptz not null default clock_timestamp(),
    handled_at timestamptz
);

create table audit_log (
    seq     bigint      generated always as identity primary key,
    at      timestamptz not null default clock_timestamp(),
    actor   text        not null,
    action  text        not null,
    subject text        not null,
    details jsonb       not null default '{}'
);

-- Partitions are weeks, made ahead and dropped whole. Runs as the owner, so that no daemon needs the right to drop.
create function maintain_partitions(retention_days integer) returns table (partition_name text, action text)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    parent text;
    week date;
    child text;
    upper_bound date;
begin
    foreach parent in array array['commands', 'attempts'] loop
        for step in -1 .. 8 loop
            week := (date_trunc('week', now() at time zone 'utc'))::date + step * 7;
            child := parent || '_' || to_char(week, 'YYYYMMDD');
            if to_regclass(child) is null then
                execute format('create table %I partition of %I for values from (%L) to (%L)', child, parent, week, week + 7);
                partition_name := child; action := 'created'; return next;
            end if;
        end loop;
        for child, upper_bound in
            select c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') + 7
            from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = to_regclass(parent)
        loop
            if upper_bound < (now() at time zone 'utc')::date - retention_days then
                execute format('drop table %I', child);
                partition_name := child; action := 'dropped'; return next;
            end if;
        end loop;
    end loop;
end $$;
revoke all on function maintain_partitions(integer) from public;
select maintain_partitions(3650);

-- Who may do what; nothing is granted to public.
revoke create on schema public from public;
grant usage on schema public to ish_gateway, ish_worker, ish_outbox, ish_ops;

grant select, insert on command_keys to ish_gateway;
grant select, insert, update on commands to ish_gateway;
grant select on attempts, conversations, messages, devices, artifacts, artifact_owners, workers, deliveries, targets to ish_gateway;
grant select on api_keys to ish_gateway;
grant select, insert on outbox to ish_gateway;
grant usage on sequence token_seq to ish_gateway;
grant insert on audit_log to ish_gateway;

grant select, insert on command_keys to ish_worker;
grant select, insert, update on commands, workers to ish_worker;
grant select, insert, update, delete on devices to ish_worker;
grant select, insert on attempts, conversations, messages, artifacts, artifact_owners, deliveries, dead_letters to ish_worker;
grant select, insert, delete on outbox to ish_worker;
grant select on targets to ish_worker;
grant usage on sequence token_seq to ish_worker;

grant select, insert, delete on command_keys to ish_outbox;
grant select, insert, update on commands to ish_outbox;
grant select, insert, update, delete on workers, deliveries, queue_losses, dead_letters to ish_outbox;
grant select, insert on attempts to ish_outbox;
grant select, insert, update, delete on outbox to ish_outbox;
grant select on messages, conversations, targets to ish_outbox;
grant usage on sequence token_seq to ish_outbox;
grant execute on function maintain_partitions(integer) to ish_outbox;

grant select on all tables in schema public to ish_ops;
grant insert, update on api_keys, targets to ish_ops;
grant insert on queue_losses, audit_log to ish_ops;
grant update (replayed_as) on dead_letters to ish_ops;
