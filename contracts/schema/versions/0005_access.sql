-- Which kinds each outside publisher may send. Workers check them themselves: RabbitMQ 3.10 lets the headers CC
-- and BCC route a message past the check of its key.
create table publishers (
    name         text        primary key,             -- its RabbitMQ user
    routing_keys text[]      not null,                -- of kinds: relay, ai.send, ai.send.batch, android.execute
    updated_at   timestamptz not null default clock_timestamp()
);
grant select on publishers to ish_worker, ish_outbox;
grant select, insert, update, delete on publishers to ish_ops;

-- As before, but whoever may call it cannot make it drop what is in use: it keeps at least the last whole day, never
-- drops a partition with an unfinished command, and looks nowhere but into the schema public.
create or replace function maintain_partitions(retention_days integer) returns table (partition_name text, action text)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    parent text;
    week date;
    child text;
    upper_bound date;
    in_use boolean;
begin
    if retention_days is null or retention_days < 1 then
        raise exception 'retention_days must be at least 1, not %', coalesce(retention_days::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    foreach parent in array array['commands', 'attempts'] loop
        for step in -1 .. 8 loop
            week := (date_trunc('week', now() at time zone 'utc'))::date + step * 7;
            child := parent || '_' || to_char(week, 'YYYYMMDD');
            if to_regclass(format('public.%I', child)) is null then
                execute format('create table public.%I partition of public.%I for values from (%L) to (%L)',
                    child, parent, week, week + 7);
                partition_name := child; action := 'created'; return next;
            end if;
        end loop;
        for child, upper_bound in
            select c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') + 7
            from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = to_regclass(format('public.%I', parent))
        loop
            if upper_bound >= (now() at time zone 'utc')::date - retention_days then
                continue;
            end if;
            -- attempts go with their commands' partition, which is looked at first
            if parent = 'commands' then
                execute format(
                    'select exists (select from public.%I where state in (''queued'', ''running'', ''retrying''))', child
                ) into in_use;
            else
                in_use := to_regclass(format('public.%I', 'commands_' || right(child, 8))) is not null;
            end if;
            if not in_use then
                execute format('drop table public.%I', child);
                partition_name := child; action := 'dropped'; return next;
            end if;
        end loop;
    end loop;
end $$;

alter function renew_keys(text[], uuid[], bytea[]) set search_path = pg_catalog, public, pg_temp;

-- Webhook secrets are read by who signs with them, and by nobody else.
revoke all on targets from ish_gateway, ish_worker, ish_ops;
grant select (id, owner, name, conversation_id, disabled_at) on targets to ish_worker;
grant select (id, owner, name, url, conversation_id, created_at, disabled_at), insert, update on targets to ish_ops;

-- What no process of these roles uses.
revoke all on deliveries, conversations, audit_log from ish_gateway;
revoke all on attempts from ish_outbox;
revoke select on artifact_pieces from ish_ops;
