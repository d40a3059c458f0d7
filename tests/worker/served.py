"""The web application and the broker, served for real for as long as a block runs."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from worker import broker
from worker.errors import BrokerError
from worker.station import Station
from worker.web import create_app


@contextmanager
def served(here: Station) -> Iterator[str]:
    """The address of the application: uvicorn in a thread, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(here), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="uvicorn")
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not server.started and thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.started
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def served_broker(here: Station) -> Iterator[None]:
    """The embedded broker of a station's storage."""
    process = subprocess.Popen(broker.embedded_command(here.settings.storage))
    try:
        deadline = time.monotonic() + 60
        while not _answers(here):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(here: Station) -> bool:
    try:
        broker.ping(here.settings)
    except BrokerError:
        return False
    return True
