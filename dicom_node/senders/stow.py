"""Results leave by STOW-RS (PS3.18 10.5): one request for many instances, one verdict for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import httpx

from dicom_node import errors
from dicom_node.senders import Destination, Outcome, Verdict, statuses, stow_response
from dicom_node.senders.files import FileToSend, identify_all

OnOutcome = Callable[[Outcome], None]

#: One request carries at most this many bytes of files and this many files: what servers and the proxies
#: before them take, and what is sent again when a request is lost. A larger file goes alone.
LARGEST_REQUEST = 256 * 1024 * 1024
MOST_FILES = 200

_CHUNK = 256 * 1024

#: HTTP status -> what it comes to and what to change, where the server gave no per-instance answer.
HTTP_MEANINGS: dict[int, tuple[Verdict, str]] = {
    400: (Verdict.REFUSED, "the server cannot read the request"),
    401: (Verdict.REFUSED, "the server asks who we are: set `authorization` of this peer"),
    403: (Verdict.REFUSED, "the server does not let us store: correct `authorization` or its permissions"),
    404: (Verdict.REFUSED, "no STOW-RS service there: correct `url`, e.g. http://pacs:8042/dicom-web"),
    405: (Verdict.REFUSED, "no STOW-RS service there: correct `url`, e.g. http://pacs:8042/dicom-web"),
    406: (Verdict.REFUSED, "the server does not answer in application/dicom+json"),
    408: (Verdict.RETRY, "the server timed out"),
    413: (Verdict.REFUSED, "too large for the server: raise its limit on request bodies"),
    415: (Verdict.REFUSED, "the server does not take these objects"),
    425: (Verdict.RETRY, "the server asks to come later"),
    429: (Verdict.RETRY, "the server asks to slow down"),
}
_TOO_LARGE = 413
#: What httpx raises before anything of a request has been sent.
UNREACHED = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.ConnectError, httpx.ConnectTimeout)


class StowSender:
    """A STOW-RS client for one destination; holds nothing open between calls."""

    def __init__(self, destination: Destination, transport: httpx.BaseTransport | None = None) -> None:
        self.destination = destination
        self._transport = transport
        #: Where instances are stored, and studies asked for.
        self.url = destination.url.rstrip("/") + "/studies"

    def send(self, paths: Sequence[Path], on_outcome: OnOutcome) -> None:
        """Send every file, see `Sender.send`; one connection, as few requests as the limits allow."""
        with self.client() as client:
            reached = False
            for batch in split(identify_all(paths, on_outcome)):
                try:
                    self._post(client, batch, on_outcome)
                except errors.SendError as error:
                    if not reached:
                        raise
                    _tell_all(batch, Verdict.RETRY, None, str(error), on_outcome)
                reached = True

    def client(self) -> httpx.Client:
        """A client that carries the destination's credentials and patience; the caller closes it."""
        headers = {"Accept": "application/dicom+json"}
        if self.destination.authorization:
            headers["Authorization"] = _header_value(self.destination)
        timeout = httpx.Timeout(self.destination.timeout_seconds)
        return httpx.Client(headers=headers, timeout=timeout, transport=self._transport)

    def _post(self, client: httpx.Client, batch: list[FileToSend], on_outcome: OnOutcome) -> None:
        """One request; raises SendError where no connection came about."""
        body = MultipartFiles(batch)
        try:
            response = client.post(self.url, content=iter(body), headers=body.headers)
        except UNREACHED as error:
            raise unreachable(self.destination, error) from error
        except httpx.HTTPError as error:
            comment = f"no answer: {type(error).__name__}"
            _tell_all(batch, Verdict.RETRY, None, comment, on_outcome)
        except OSError as error:
            _tell_all(batch, Verdict.RETRY, None, f"a file cannot be read: {error.strerror}", on_outcome)
        else:
            self._conclude(client, response, batch, on_outcome)

    def _conclude(
        self, client: httpx.Client, response: httpx.Response, batch: list[FileToSend], on_outcome: OnOutcome
    ) -> None:
        """Tell each file its outcome; a request that was too large goes again in halves."""
        if response.status_code == _TOO_LARGE and len(batch) > 1:
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                try:
                    self._post(client, half, on_outcome)
                except errors.SendError as error:
                    _tell_all(half, Verdict.RETRY, None, str(error), on_outcome)
            return
        for file in batch:
            on_outcome(_outcome(file, response.status_code, stow_response.parse(response.content)))


def unreachable(destination: Destination, error: Exception) -> errors.Unreachable:
    """Why no connection came about, in words that say what to change."""
    where = f"{destination.name} ({destination.url})"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return errors.Unreachable(f"{where}: not a web address; correct `url` of this peer")
    if isinstance(error, httpx.ConnectTimeout):
        return errors.Unreachable(f"{where}: no connection in time; check `url` and firewalls")
    words = "cannot connect; is it running, is `url` right, is its certificate trusted?"
    return errors.Unreachable(f"{where}: {words}")


def split(files: Sequence[FileToSend]) -> Iterator[list[FileToSend]]:
    """The files in requests of bounded size, in order."""
    batch: list[FileToSend] = []
    size = 0
    for file in files:
        if batch and (size + file.size > LARGEST_REQUEST or len(batch) == MOST_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


class MultipartFiles:
    """A multipart/related body (RFC 2387, PS3.18 8.6.1.2.1) read from disk while it is sent.

    Its length is known beforehand: servers that refuse chunked transfer coding take it.
    """

    def __init__(self, files: Sequence[FileToSend]) -> None:
        self._files = files
        boundary = uuid4().hex
        self._head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"--{boundary}--\r\n".encode()
        framing = len(files) * (len(self._head) + len(b"\r\n")) + len(self._tail)
        self.headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(framing + sum(file.size for file in files)),
        }

    def __iter__(self) -> Iterator[bytes]:
        for entry in self._files:
            yield self._head
            with entry.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
            yield b"\r\n"
        yield self._tail


def _outcome(file: FileToSend, http_status: int, answer: stow_response.Answer | None) -> Outcome:
    """What the response says of one file: by its UID where it names it, else by the HTTP status."""
    reason = answer.reasons.get(file.sop_instance_uid) if answer else None
    if reason is not None:
        return statuses.outcome(file, reason)
    verdict, comment = by_http_status(http_status, answered=answer is not None)
    uid = file.sop_instance_uid
    return Outcome(sop_instance_uid=uid, verdict=verdict, status=http_status, comment=comment, path=file.path)


def by_http_status(http_status: int, answered: bool) -> tuple[Verdict, str]:
    """Verdict and words where the server does not name the instance."""
    if http_status in HTTP_MEANINGS:
        verdict, words = HTTP_MEANINGS[http_status]
        return verdict, f"HTTP {http_status}: {words}"
    if http_status >= 500:
        return Verdict.RETRY, f"HTTP {http_status}: the server failed"
    if 300 <= http_status < 400:
        return Verdict.REFUSED, f"HTTP {http_status}: the service has moved: correct `url`"
    if 400 <= http_status < 500 and not answered:
        return Verdict.REFUSED, f"HTTP {http_status}: refused"
    if http_status == 200 and not answered:
        # PS3.18 Table 10.5.3-1: 200 is "stored all instances"; that it names none is worth a remark.
        return Verdict.WARNING, "HTTP 200: stored, by the HTTP status alone; the response names no instance"
    return Verdict.RETRY, f"HTTP {http_status}: the response does not say what became of this instance"


def _header_value(destination: Destination) -> str:
    """The authorization, if a header can carry it; the libraries below print a value they refuse."""
    value = destination.authorization or ""
    if not (value.isascii() and value.isprintable()):
        raise errors.SendError(f"{destination.name}: `authorization` holds characters that a header cannot")
    return value


def _tell_all(
    batch: Sequence[FileToSend], verdict: Verdict, status: int | None, comment: str, on_outcome: OnOutcome
) -> None:
    for file in batch:
        uid = file.sop_instance_uid
        on_outcome(
            Outcome(sop_instance_uid=uid, verdict=verdict, status=status, comment=comment, path=file.path)
        )
