"""Structured logs: one line an event, and the table of every event's name.

Events are constant snake_case in the past tense; facts go into fields. No prompt, reply, key or screen is ever logged.

| event | level | meaning |
| --- | --- | --- |
| process_started, process_stopping, process_stopped | info | it is ready; was asked to stop; has closed everything |
| publishing_channel_opened, consumer_started | info | a broker channel is usable |
| publishing_channel_lost, consumer_lost, broker_unreachable | warning | reconnecting |
| command_retried | warning | a transient error; the next try is scheduled |
| command_deferred | debug | there is no capacity for it now; it waits and spends no attempt |
| command_refused | warning | a message became a dead letter |
| wait_left_to_outbox | warning | a wait queue did not take a retry; the outbox worker publishes it when due |
| refusal_dropped | warning | a message that is no command asked for an answer where no queue takes it |
| probe_not_declared | warning | /ready cannot publish its probe: an alarm is seen only by commands |
| duplicate_reply_dropped | warning | a duplicate asked for a reply where no queue is |
| command_crashed | error | a handler raised something outside the error tree |
| loop_restarted | error | a part of this process failed and is started over |
| fault_contained | error | an error that nobody foresaw, kept to the command or task that it struck |
| part_gone | error | a part failed for too long; the process exits, to be started again |
| batch_bisected | warning | a row Postgres refuses was found in a batch |
| claims_lost | warning | this worker was silent past its lease; others took over |
| postgres_unreachable, redis_unreachable | warning | waiting for the service |
| postgres_unusable | error | a right, a column or a partition is missing: waiting for a person, or for a migration |
| postgres_reachable, redis_reachable | info | it is back |
| breaker_opened, breaker_recovered | warning, info | a provider, model or key fails and is left alone; it serves again |
| provider_unusable | error | a key, model or address of a provider cannot work until a person acts |
| configuration_reloaded, configuration_refused | info, error | the providers file changed; one that cannot be used changes nothing |
| request_crashed | error | the gateway answered 500; the request's id is in its problem document |
| recording_refused, recording_given_up | error, warning | accepted commands are left for their worker to record |
| consumer_gone | error | no consumer for too long; the process exits, to be started again |
| refusal_dropped | warning | whoever published a message that is no command has no queue that takes the answer |
| probe_not_declared | warning | the exchange by which a gateway notices the broker's alarms could not be made |
| reply_resent, reply_given_up | info, error | results and follow-ups that were not confirmed at once |
| reply_postponed, message_postponed | error, warning | one row or message could not be handled; it is tried again |
| command_rerouted | info | a message that no queue took went to its queue after all |
| commands_republished | warning | their message was lost with a queue or a worker |
| outbox_job_failed, outbox_job_recovered | error, info | one job of the outbox worker, once an episode |
| rows_pruned, partition_changed, uploads_pruned | info | housekeeping |
| delivery_failed, delivery_given_up | warning, error | a webhook target does not answer |
| phones_taken, phones_released | info | this worker has phones to use; has left them to others |
| phone_exchanged | warning | what is connected by that name is not the phone that was taken; it is taken anew |
| phones_lost | warning | it is not sure any more that they are this worker's; it has let go of them |
| fence_unsupported | warning | a phone cannot keep the file that protects it from a worker that was frozen |
| queue_declared, queue_awaited, queue_removed | info | a phone's queue was made; is not there yet; went with its phone |
| queue_redeclared | error | a queue was missing; commands recorded for it are published again |
"""

import logging
import sys
from typing import Any

import structlog
from structlog.stdlib import BoundLogger


def configure_logs(*, level: str, format: str, process: str) -> None:  # noqa: A002  # the setting's own name
    """Set up logging for this process; call once, first.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        format: `json`, `text` or `auto` (text in a terminal, else JSON).
        process: Bound to every line: `gateway`, `relay`, ….
    """
    text = format == "text" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # libraries: warnings and worse, in the same stream; aiormq's own errors are reported by ours with their cause
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s", force=True
    )
    for name in ("aiormq", "aio_pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def get_logger(**fields: Any) -> BoundLogger:
    """A logger with fields bound.

    Args:
        fields: Facts that stand on every line of this logger.
    """
    logger: BoundLogger = structlog.get_logger(**fields)
    return logger
