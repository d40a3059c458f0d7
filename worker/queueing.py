"""Celery's configuration; read when the app is first used, because the broker is a setting of ours."""

from __future__ import annotations

from kombu import Queue

from worker import broker, settings

#: Analyses on the CPU and on the GPU (`Work.queue` says which), and objects on their way out.
QUEUES = ("cpu", "gpu", "deliver")

broker_url = broker.url(settings.load())
broker_connection_retry_on_startup = True
# A sender gives up soon where the broker is away: the sweep sends again, and may not be held up.
broker_transport_options = {
    "visibility_timeout": 6 * 3600,
    "socket_timeout": 30,
    "max_retries": 1,
    "interval_start": 0.1,
    "interval_step": 0,
    "priority_steps": list(broker.PRIORITIES),
}

# A message is a nudge: the claim in SQL decides, so late acknowledgement can only repeat a no-op.
task_acks_late = True
task_reject_on_worker_lost = True
task_ignore_result = True
task_serializer = "json"
accept_content = ["json"]

task_queues = [Queue(name) for name in QUEUES]
task_default_queue = "cpu"
# Analyses go where their sender says.
task_routes = {
    "deliver": {"queue": "deliver"},
    "commit": {"queue": "deliver"},
    "answer": {"queue": "deliver"},
}
task_create_missing_queues = False
# A worker takes a message when it has nothing else in hand, so that the most urgent one is always next.
worker_prefetch_multiplier = 1
# A child loads its models before it says that it is up. By default it is killed after 4 s, and the next one too.
worker_proc_alive_timeout = 600.0

worker_hijack_root_logger = False
worker_redirect_stdouts = False
# The lease, not the connection to the broker, says whose job it is.
worker_cancel_long_running_tasks_on_connection_loss = False
