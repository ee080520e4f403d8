-- What something live still needs is not pruned, however old it is.

-- As before, but a message waits for its deliveries. Its owner's targets are few, and each looks one delivery up by its key.
create or replace function prune_messages(
    after_owner text, after_conversation text, retention_days integer, conversations integer, most integer,
    out next_owner text, out next_conversation text, out removed bigint
)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
    its_owner text;
    its_id text;
    batch bigint;
begin
    next_owner := after_owner;
    next_conversation := after_conversation;
    removed := 0;
    for step in 1 .. conversations loop
        select m.owner, m.conversation_id into its_owner, its_id from messages m
        where (m.owner, m.conversation_id) > (next_owner, next_conversation)
        order by m.owner, m.conversation_id limit 1;
        if not found then
            next_owner := null;
            next_conversation := null;
            return;
        end if;
        with old as materialized (
            select m.publisher, m.command_id, m.position from messages m
            where m.owner = its_owner and m.conversation_id = its_id and m.accepted_at < oldest
                and not exists (
                    select from targets t join deliveries d on d.target_id = t.id
                    where t.owner = its_owner and d.publisher = m.publisher and d.command_id = m.command_id
                        and d.position = m.position and d.state = 'pending'
                )
            order by m.accepted_at limit most - removed
        )
        delete from messages m using old
        where m.publisher = old.publisher and m.command_id = old.command_id and m.position = old.position;
        get diagnostics batch = row_count;
        removed := removed + batch;
        if removed >= most then
            return;  -- this conversation again, at the next call
        end if;
        next_owner := its_owner;
        next_conversation := its_id;
    end loop;
end $$;

-- As before, but a phone stays while a command waits for it. The commands are read when a phone is old, and once.
create or replace function prune_devices(retention_days integer, most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
    removed bigint;
begin
    delete from device_leases l where l.taken_at < oldest
        and not exists (select from workers w where w.incarnation = l.holder)
        and not exists (select from devices d where d.serial = l.serial and d.seen_at >= oldest);
    with waited_for as materialized (
        select distinct c.routing_key from commands c
        where c.state in ('queued', 'retrying', 'running') and c.kind = 'android.execute'
    ),
    old as materialized (
        select d.serial from devices d where d.seen_at < oldest
            and not exists (select from device_leases l where l.serial = d.serial)
            and not exists (
                select from waited_for f
                where f.routing_key in ('android.execute.' || d.serial, 'android.execute.' || d.transport)
            )
        order by d.seen_at limit most for update skip locked
    )
    delete from devices d using old where d.serial = old.serial;
    get diagnostics removed = row_count;
    return removed;
end $$;
