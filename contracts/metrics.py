"""Every metric of every process, defined once; labels are closed sets, ids and texts are never labels."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from contracts.settings import stop

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

COMMANDS = Counter("ish_commands_total", "Commands finished on record.", ["kind", "outcome"])
COMMAND_DURATION = Histogram("ish_command_duration_seconds", "From claim to commit.", ["kind"], buckets=_FAST)
QUEUE_WAIT = Histogram("ish_queue_wait_seconds", "From acceptance to the worker.", ["kind"], buckets=_FAST)
RETRIES = Counter("ish_retries_total", "Tries that ended in a transient error and wait for the next.", ["kind"])
DEFERRALS = Counter("ish_deferrals_total", "Runs put off for want of capacity; no attempt is spent.", ["kind"])
DUPLICATES = Counter("ish_duplicates_absorbed_total", "Deliveries of commands that were finished already.", ["kind"])
TAKEOVERS = Counter("ish_takeovers_total", "Commands taken over from a worker that went silent.", ["kind"])
DEAD_LETTERS = Counter("ish_dead_letters_total", "Messages that became dead letters.", ["code"])
FENCED = Counter(
    "ish_fenced_commits_total", "Results discarded since another worker had taken the command over.", ["kind"]
)
AI_CALLS = Counter(
    "ish_ai_calls_total", "Calls of AI providers; the outcome is ok, unknown or an error's code.", ["target", "outcome"]
)
AI_DEFERRALS = Counter("ish_ai_deferrals_total", "Calls put off since no target had room.", ["target", "reason"])
AI_GATE_WAIT = Histogram("ish_ai_gate_wait_seconds", "Waited in the worker for room at a provider.", buckets=_FAST)
AI_BREAKER = Gauge("ish_ai_breaker_state", "0 closed, 1 recovering, 2 open, of a provider, model or key.", ["scope"])
IN_FLIGHT = Gauge("ish_commands_in_flight", "Deliveries held by this worker.", ["pool"])
BATCH_SIZE = Histogram(
    "ish_batch_commands", "Commands in one transaction.", ["pool"], buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
COMMIT_DURATION = Histogram("ish_commit_duration_seconds", "One result transaction.", ["pool"], buckets=_FAST)
BISECTIONS = Counter("ish_batch_bisections_total", "Batches split to find a row that Postgres refuses.", ["pool"])
RESTARTS = Counter("ish_loop_restarts_total", "Background loops that failed and were started over.", ["loop"])
FAULTS = Counter(
    "ish_faults_contained_total", "Unforeseen errors, kept to the command or task that they struck.", ["part"]
)
CONSUMER_ALIVE = Gauge("ish_consumer_alive", "1 while this worker has a live consumer.", ["pool"])
RECONNECTS = Counter("ish_reconnects_total", "Connections to the broker opened after the first.", ["connection"])

HTTP_REQUESTS = Counter("ish_http_requests_total", "Requests answered by the gateway.", ["route", "status"])
HTTP_CONNECTIONS_REFUSED = Counter(
    "ish_http_connections_refused_total", "Connections turned away: too many in all, or of one address.", ["bound"]
)
HTTP_DURATION = Histogram("ish_http_request_duration_seconds", "Time to answer.", ["route"], buckets=_FAST)
UNRECORDED = Counter("ish_unrecorded_commands_total", "Accepted commands left for their worker to record.")
PUBLISH_FAILURES = Counter("ish_publish_failures_total", "Commands the broker did not confirm.", ["reason"])

OUTBOX_RESENT = Counter("ish_outbox_resent_total", "Results and follow-ups sent again.", ["purpose"])
OUTBOX_LAG = Gauge("ish_outbox_lag_seconds", "Age of the oldest unconfirmed result.")
DELIVERIES = Counter("ish_deliveries_total", "Webhook tries.", ["outcome"])
PRUNED = Counter("ish_pruned_total", "Rows deleted, or partitions dropped, after their retention.", ["kind"])
REPUBLISHED = Counter("ish_commands_republished_total", "Commands whose message was lost, published again.", ["reason"])


def serve_metrics(host: str, port: int) -> int:
    """Serve /metrics from a thread of its own.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.

    Returns:
        The port it listens on. When it cannot listen, the process ends with one line.
    """
    try:
        server, _ = start_http_server(port, addr=host)
    except OSError as error:
        stop(f"cannot listen on {host}:{port}: {error.strerror}; set ISH_METRICS_HOST or ISH_METRICS_PORT", code=1)
    return int(server.server_port)
