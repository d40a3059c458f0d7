"""Conducts a study's journey; the only package that knows the others.

dicom_node/listener.py   C-STORE accepted, bytes durable (dicom_node/spool.py), then 0x0000
worker/indexer.py        rows, in batches behind the listener
worker/pipeline.py       the story: receive -> close -> analyse -> deliver
worker/routing.py        which model takes which series, with the trace that decided
worker/enqueue.py        messages, after commit
worker/tasks.py          the messages' other end: a job or a delivery, by its row id
worker/sweep.py          quiet studies, lost messages, expired leases, due deliveries
"""

from __future__ import annotations
