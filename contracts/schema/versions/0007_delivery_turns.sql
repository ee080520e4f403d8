-- Who delivers a conversation's messages to a target now. Which message is the first may change while another is on its way
-- (an older one is recorded late), so the lease is the conversation's and not a message's. A row is there during a turn only.
create table delivery_turns (
    target_id       uuid        not null references targets (id) on delete cascade,
    conversation_id text        not null,
    token           uuid        not null,
    until           timestamptz not null,             -- after it, another worker may take the turn
    primary key (target_id, conversation_id)
);
grant select, insert, update, delete on delivery_turns to ish_outbox;
grant select on delivery_turns to ish_ops;
