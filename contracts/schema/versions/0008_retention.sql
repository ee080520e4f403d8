-- Functions that delete what has served its time, a bounded batch at each call. They run as the owner: whoever may call
-- them can neither delete what is younger than a day nor choose what is deleted.

create index audit_log_by_time on audit_log (at);
create index api_keys_ended on api_keys (least(revoked_at, expires_at));
create index targets_removed on targets (disabled_at) where disabled_at is not null;

-- The moment before which things are past a retention.
create function retention_limit(retention_days integer) returns timestamptz language plpgsql stable as $$
begin
    if retention_days is null or retention_days < 1 then
        raise exception 'retention_days must be at least 1, not %', coalesce(retention_days::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    return now() - make_interval(days => retention_days);
end $$;

-- Keys of commands whose partition is gone, and of no others: a key goes with its command's week. Days are visited by the
-- index, one probe each; a key that is renewed meanwhile has another day and stays.
create function prune_keys(most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    one date := '-infinity';
    batch bigint;
    removed bigint := 0;
begin
    loop
        select k.day into one from command_keys k where k.day > one order by k.day limit 1;
        exit when not found or one >= date_trunc('week', now() at time zone 'utc')::date - 7;
        continue when is_kept(one);
        with old as materialized (
            select k.publisher, k.id from command_keys k where k.day = one limit most - removed for update skip locked
        )
        delete from command_keys k using old where k.publisher = old.publisher and k.id = old.id;
        get diagnostics batch = row_count;
        removed := removed + batch;
        exit when removed >= most;
    end loop;
    return removed;
end $$;

-- Lines of conversations, visited in the order of `messages_by_conversation` from behind the one that is named. Answers
-- with the one to go on behind; null when that was the last.
create function prune_messages(
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

-- Conversations without a line, begun before the limit; visited as above.
create function prune_conversations(
    after_owner text, after_conversation text, retention_days integer, conversations integer,
    out next_owner text, out next_conversation text, out removed bigint
)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
begin
    with page as materialized (
        select c.owner, c.id, c.created_at from conversations c
        where (c.owner, c.id) > (after_owner, after_conversation) order by c.owner, c.id limit conversations
    ),
    gone as (
        delete from conversations c using page
        where c.owner = page.owner and c.id = page.id and page.created_at < oldest
            and not exists (select from messages m where m.owner = page.owner and m.conversation_id = page.id)
        returning 1
    )
    select last.owner, last.id, (select count(*) from gone) into next_owner, next_conversation, removed
    from (select true) one left join (select owner, id from page order by owner desc, id desc limit 1) last on true;
end $$;

create function prune_audit_log(retention_days integer, most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
    removed bigint;
begin
    delete from audit_log where seq in (select a.seq from audit_log a where a.at < oldest order by a.at limit most);
    get diagnostics removed = row_count;
    return removed;
end $$;

-- API keys that were revoked or ran out before the limit.
create function prune_api_keys(retention_days integer, most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
    removed bigint;
begin
    delete from api_keys where id in (
        select k.id from api_keys k where least(k.revoked_at, k.expires_at) < oldest
        order by least(k.revoked_at, k.expires_at) limit most
    );
    get diagnostics removed = row_count;
    return removed;
end $$;

-- Webhook targets that were removed before the limit and that no delivery names any more.
create function prune_targets(retention_days integer, most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
    removed bigint;
begin
    with old as materialized (
        select t.id from targets t where t.disabled_at < oldest
            and not exists (select from deliveries d where d.target_id = t.id)
        order by t.disabled_at limit most for update skip locked
    )
    delete from targets t using old where t.id = old.id;
    get diagnostics removed = row_count;
    return removed;
end $$;

-- Phones that no worker has seen since the limit, with their leases, and leases of phones that are not on record. None
-- that a worker holds: a worker's row goes a day after its last heartbeat. Tokens stay unique: they come from one sequence.
create function prune_devices(retention_days integer, most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    oldest timestamptz := retention_limit(retention_days);
    removed bigint;
begin
    delete from device_leases l where l.taken_at < oldest
        and not exists (select from workers w where w.incarnation = l.holder)
        and not exists (select from devices d where d.serial = l.serial and d.seen_at >= oldest);
    with old as materialized (
        select d.serial from devices d where d.seen_at < oldest
            and not exists (select from device_leases l where l.serial = d.serial)
        order by d.seen_at limit most for update skip locked
    )
    delete from devices d using old where d.serial = old.serial;
    get diagnostics removed = row_count;
    return removed;
end $$;

revoke all on function prune_keys(integer), prune_messages(text, text, integer, integer, integer),
    prune_conversations(text, text, integer, integer), prune_audit_log(integer, integer), prune_api_keys(integer, integer),
    prune_targets(integer, integer), prune_devices(integer, integer) from public;
grant execute on function prune_keys(integer), prune_messages(text, text, integer, integer, integer),
    prune_conversations(text, text, integer, integer), prune_audit_log(integer, integer), prune_api_keys(integer, integer),
    prune_targets(integer, integer), prune_devices(integer, integer) to ish_outbox;
revoke delete on command_keys from ish_outbox;  -- by `prune_keys` alone
