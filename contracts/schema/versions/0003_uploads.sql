-- Uploads: bytes that an owner sends, in pieces, until they are an artifact.

--  open --> stored      its pieces are the artifact's content; the row goes when the artifact does
--    |
--    +----> duplicate   the same bytes were there already; its pieces go, and the row after a day
--    `----> discarded   cancelled, refused or never finished; its pieces go, and the row with them
create table artifact_uploads (
    id             uuid        primary key default gen_random_uuid(),
    owner          text        not null,
    state          text        not null default 'open' check (state in ('open', 'stored', 'duplicate', 'discarded')),
    media_type     text        not null,
    file_name      text,
    size_bytes     bigint,                            -- as declared; null until the last byte has come
    sha256         text,                              -- as declared, then as it is
    received_bytes bigint      not null default 0,
    writer         uuid,                              -- the request that may append: a newer one fences the older
    created_at     timestamptz not null default clock_timestamp(),
    touched_at     timestamptz not null default clock_timestamp()
);
create index artifact_uploads_unfinished on artifact_uploads (touched_at) where state <> 'stored';

create table artifact_pieces (
    upload     uuid   not null,
    first_byte bigint not null,                       -- pieces follow each other without a gap
    content    bytea  not null,
    primary key (upload, first_byte)
);
alter table artifact_pieces alter column content set storage external;  -- what is uploaded is compressed already

alter table artifacts alter column content drop not null;
alter table artifacts add column upload uuid;         -- whose pieces the content is; null when it stands in this row
alter table artifacts add constraint artifacts_one_content check ((content is null) <> (upload is null));

-- What its owner calls it; null for what a command has made. For an upload the publisher is the gateway, the id its own.
alter table artifact_owners add column media_type text;
alter table artifact_owners add column file_name text;
create index artifact_owners_by_owner on artifact_owners (owner, sha256);

grant select, insert, update on artifact_uploads to ish_gateway;
grant select, insert on artifact_pieces to ish_gateway;
grant insert on artifacts, artifact_owners to ish_gateway;
grant update (created_at) on artifacts to ish_gateway;
grant select on artifact_pieces to ish_worker;
grant select, update, delete on artifact_uploads, artifact_pieces to ish_outbox;
grant select on artifact_uploads, artifact_pieces to ish_ops;
