-- An id stands for its command for as long as that is kept; afterwards the same id is a new command.

-- Whether commands of a day are kept: their partition, which is a week, is there. Looks one name up, and reads no table.
create function is_kept(day date) returns boolean language sql stable as $$
    select to_regclass('public.commands_' || to_char(date_trunc('week', day::timestamp), 'YYYYMMDD')) is not null
$$;

-- Lets keys stand for other commands, but only keys whose own are not kept any more. Runs as the owner, so that no daemon
-- needs the right to change a key.
create function renew_keys(publishers text[], ids uuid[], fingerprints bytea[]) returns bigint
language sql security definer set search_path = public, pg_temp as $$
    with w as (
        select * from unnest(publishers, ids, fingerprints) as t(publisher, id, fingerprint)
    ),
    stale as materialized (
        select k.publisher, k.id, w.fingerprint from w join command_keys k on k.publisher = w.publisher and k.id = w.id
        where not is_kept(k.day) order by 1, 2 for update of k
    ),
    renewed as (
        update command_keys k set fingerprint = stale.fingerprint, day = (now() at time zone 'utc')::date
        from stale where k.publisher = stale.publisher and k.id = stale.id
        returning 1
    )
    select count(*) from renewed
$$;
revoke all on function renew_keys(text[], uuid[], bytea[]) from public;
grant execute on function renew_keys(text[], uuid[], bytea[]) to ish_gateway, ish_worker, ish_outbox;
