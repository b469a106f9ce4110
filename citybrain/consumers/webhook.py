"""Alerts as HTTP POST of JSON, with the effect's key in `Idempotency-Key`."""

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from citybrain.consumers.consumer import Consumer, Outcome
from citybrain.deliveries import Delivery

TIMEOUT_S = 10


def check(parts: SplitResult) -> None:
    """Raises ValueError for an address without a host."""
    if not parts.hostname:
        raise ValueError("it is not http(s)://host/...")


def tell(delivery: Delivery) -> tuple[Outcome, str]:
    """Post once. Redirects are not followed: the alert would go where nobody has sent it."""
    parts = urlsplit(delivery.address)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.connect()
    except OSError as error:
        return "again", str(error)
    head = {"Content-Type": "application/json", "Idempotency-Key": quote(delivery.key, safe="/:")}
    path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        connection.request("POST", path, delivery.body, head)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return "unknown", repr(error)
    finally:
        connection.close()
    if 200 <= status < 300:
        return "delivered", str(status)
    return ("again" if status in (429, 503) else "refused"), str(status)


CONSUMER = Consumer(check, tell)
