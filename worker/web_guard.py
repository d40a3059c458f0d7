"""What keeps other people's pages and names away from ours: headers, hosts and the guard of changes."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from fastapi import Header, HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.sections import Web

#: Nothing is loaded from anywhere else, nothing inline runs, nobody may frame us.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # A page's address holds a Study Instance UID.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """ASGI middleware: every answer carries the headers, and nothing of a patient is kept by a cache."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add to the answer's headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The style sheet may be kept, and is asked for again by its ETag.
        caching = "no-cache" if scope["path"].startswith("/static/") else "no-store"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers["Cache-Control"] = caching
            await send(message)

        await self._app(scope, receive, send_with_headers)


def allowed_hosts(web: Web) -> list[str]:
    """The Host headers that are answered.

    Bound to this machine only, its own names: a page elsewhere whose name was made to resolve to
    127.0.0.1 (DNS rebinding) is refused. Bound to a network, any: we cannot know our names there.
    """
    if not _is_loopback(web.host):
        return ["*"]
    return ["localhost", "127.0.0.1", "[::1]", "::1", web.host.lower()]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_origin_only(
    request: Request,
    x_secondread: Annotated[
        str | None, Header(description="Must be 1, unless the content type is application/json.")
    ] = None,
) -> None:
    """Refuse a change that another site's page could have made a browser send.

    A plain form or link can set neither this header nor this content type; a script of another origin
    must ask first (CORS preflight), and is never allowed to.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if x_secondread != "1" and content_type != "application/json":
        raise HTTPException(403, "send the header X-Secondread: 1 with a request that changes something")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "a page of another site may not change anything here")
