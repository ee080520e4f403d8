-- What the AI pool and the Android pool keep beside a command's life.

alter table commands add column calls integer not null default 0;  -- of providers, over all runs

-- How a run came about: the routing decision and each call of a provider.
alter table attempts add column details jsonb;

-- What can be asked for; written by AI workers from their configuration.
create table ai_models (
    name           text        primary key,           -- an alias, or provider/model
    kind           text        not null check (kind in ('alias', 'model')),
    provider       text,
    context_tokens bigint,
    capabilities   text[]      not null default '{}',
    policy         text,
    models         text[]      not null default '{}', -- of an alias
    seen_at        timestamptz not null default clock_timestamp()
);

alter table devices add column tags text[] not null default '{}';
alter table devices add column queue_depth integer;

-- Which worker may touch a phone. The token fences: it is also written to the phone itself.
create table device_leases (
    serial     text        primary key,
    holder     uuid        not null,
    token      bigint      not null,
    taken_at   timestamptz not null default clock_timestamp()
);
create index device_leases_by_holder on device_leases (holder);

create index artifacts_by_time on artifacts (created_at);

grant select, insert, update, delete on ai_models, device_leases to ish_worker;
grant select on ai_models, device_leases to ish_gateway, ish_ops;
grant select on devices, device_leases to ish_outbox;
grant select, delete on artifacts, artifact_owners to ish_outbox;
grant update (created_at) on artifacts to ish_worker;  -- the same picture again is a new one, as far as its age goes
grant update (tags) on devices to ish_ops;
grant delete on device_leases to ish_ops;
