"""Uploads in PostgreSQL: one function per statement, its SQL beside it.

Bytes live in PostgreSQL, where every gateway and every worker reaches them. A piece is written together with the new
length in one statement, so that a length is never ahead of its bytes; whoever appended last is the writer, and what an
earlier request sends late is not written (`ops/decisions/0009-artifacts-in-pieces.md`).
"""

from typing import Any
from uuid import UUID

from gateway import PUBLISHER
from gateway.services.database import Database

PIECE_BYTES = 1024 * 1024
MAX_OPEN = 100
"""Unfinished uploads of one owner."""
_SECONDS = 5.0
_WRITE_SECONDS = 15.0

_CREATE = f"""
insert into artifact_uploads (owner, media_type, file_name, size_bytes, sha256)
select $1, $2, $3, $4, $5
where (select count(*) from artifact_uploads where owner = $1 and state = 'open') < {MAX_OPEN}
returning id
"""  # noqa: S608  # a constant of this module

FIND = """
select u.id, u.state, u.media_type, u.file_name, u.size_bytes, u.sha256, u.received_bytes, u.touched_at
from artifact_uploads u where u.id = $1 and u.owner = $2 and u.state <> 'discarded'
"""

_BEGIN = """
update artifact_uploads set writer = $3, touched_at = clock_timestamp(), size_bytes = coalesce(size_bytes, $5),
  sha256 = coalesce(sha256, $6)
where id = $1 and owner = $2 and state = 'open' and received_bytes = $4
returning id
"""

_APPEND = """
with mine as (
  update artifact_uploads set received_bytes = received_bytes + octet_length($4::bytea), touched_at = clock_timestamp()
  where id = $1 and writer = $2 and state = 'open' and received_bytes = $3
  returning id
)
insert into artifact_pieces (upload, first_byte, content) select id, $3, $4 from mine returning first_byte
"""

# The same bytes may be there already: then that artifact counts as new, and these pieces are not needed.
_FINISH = """
with mine as (
  select * from artifact_uploads where id = $1 and writer = $2 and state = 'open' and received_bytes = $4 for update
),
kept as (
  insert into artifacts (sha256, content_type, size_bytes, content, upload)
  select $3, media_type, received_bytes, null, id from mine
  on conflict (sha256) do update set created_at = clock_timestamp()
  returning upload
),
owned as (
  insert into artifact_owners (sha256, owner, publisher, command_id, media_type, file_name)
  select $3, owner, $5, id, media_type, file_name from mine
)
update artifact_uploads u set
  state = case when kept.upload = u.id then 'stored' else 'duplicate' end,
  sha256 = $3, size_bytes = u.received_bytes, touched_at = clock_timestamp()
from kept, mine where u.id = mine.id
returning u.id
"""

_DISCARD = """
update artifact_uploads set state = 'discarded' where id = $1 and owner = $2 and state = 'open' returning id
"""

PIECE = """
select first_byte, content from artifact_pieces where upload = $1 and first_byte <= $2 order by first_byte desc limit 1
"""


async def create(
    database: Database,
    owner: str,
    *,
    media_type: str,
    file_name: str | None,
    size_bytes: int | None,
    sha256: str | None,
) -> UUID | None:
    """Begin an upload; None when its owner has too many that are not finished.

    Args:
        database: Where uploads are kept.
        owner: Who uploads.
        media_type: Of the whole.
        file_name: What its owner calls it.
        size_bytes: As declared; None when it is not known yet.
        sha256: As declared.
    """
    row = await database.fetchrow(_CREATE, owner, media_type, file_name, size_bytes, sha256, timeout_seconds=_SECONDS)
    return None if row is None else row["id"]


async def find(database: Database, owner: str, upload: UUID) -> Any:
    """An upload of an owner; None when they have none of that id.

    Args:
        database: Where uploads are kept.
        owner: Who asks.
        upload: Its id.
    """
    return await database.fetchrow(FIND, upload, owner, timeout_seconds=_SECONDS)


async def begin(
    database: Database,
    owner: str,
    upload: UUID,
    *,
    writer: UUID,
    offset: int,
    size_bytes: int | None = None,
    sha256: str | None = None,
) -> bool:
    """Become the writer, if the upload is open and as long as `offset` says.

    Args:
        database: Where uploads are kept.
        owner: Who appends.
        upload: Its id.
        writer: The request.
        offset: Place of its first byte.
        size_bytes: Of the whole, where it is known only now.
        sha256: Of the whole, where it is declared only now.
    """
    row = await database.fetchrow(_BEGIN, upload, owner, writer, offset, size_bytes, sha256, timeout_seconds=_SECONDS)
    return row is not None


async def append(database: Database, upload: UUID, *, writer: UUID, offset: int, piece: bytes) -> bool:
    """Write a piece; False when another request appends by now.

    Args:
        database: Where uploads are kept.
        upload: Its id.
        writer: The request.
        offset: Place of the piece's first byte.
        piece: At most `PIECE_BYTES`.
    """
    row = await database.fetchrow(_APPEND, upload, writer, offset, piece, timeout_seconds=_WRITE_SECONDS)
    return row is not None


async def finish(database: Database, upload: UUID, *, writer: UUID, sha256: str, size_bytes: int) -> bool:
    """Make an artifact of a whole upload; False when another request appends by now.

    Args:
        database: Where uploads are kept.
        upload: Its id.
        writer: The request.
        sha256: Of what was written.
        size_bytes: Of what was written.
    """
    row = await database.fetchrow(_FINISH, upload, writer, sha256, size_bytes, PUBLISHER, timeout_seconds=_SECONDS)
    return row is not None


async def discard(database: Database, owner: str, upload: UUID) -> bool:
    """Give an unfinished upload up; its pieces are removed a little later.

    Args:
        database: Where uploads are kept.
        owner: Whose it is.
        upload: Its id.
    """
    return await database.fetchrow(_DISCARD, upload, owner, timeout_seconds=_SECONDS) is not None


async def piece_at(database: Database, upload: UUID, position: int) -> bytes | None:
    """The bytes from a position to the end of the piece that it is in; None when there are none.

    Args:
        database: Where uploads are kept.
        upload: Whose bytes.
        position: Counted from 0.
    """
    row = await database.fetchrow(PIECE, upload, position, timeout_seconds=_SECONDS)
    if row is None:
        return None
    content: bytes = row["content"]
    return content[position - row["first_byte"] :] or None
