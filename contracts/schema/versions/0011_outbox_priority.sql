-- A follow-up command that is sent again goes where it was first sent: its priority decides its queue.
alter table outbox add column priority text;
