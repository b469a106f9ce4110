"""Who can be told of alerts: one file a consumer, chosen by the scheme of an address.

A consumer has two functions: `check` raises ValueError with what an address lacks, and `tell`
sends one delivery once and says what is known of its arrival.
"""

from urllib.parse import SplitResult, urlsplit

from citybrain.consumers import file, webhook
from citybrain.consumers.consumer import Consumer, Outcome
from citybrain.deliveries import Delivery
from citybrain.errors import UsageError

CONSUMERS: dict[str, Consumer] = {
    "http": webhook.CONSUMER,
    "https": webhook.CONSUMER,
    "file": file.CONSUMER,
}


def addresses(webhooks: str) -> list[str]:
    """The addresses of the setting `webhooks`, written with commas.

    Raises UsageError for one that nobody can be told at; since an address may hold a secret,
    the message does not repeat it.
    """
    found = [address.strip() for address in webhooks.split(",") if address.strip()]
    for number, address in enumerate(found, 1):
        try:
            parts = urlsplit(address)
            _consumer(parts).check(parts)
        except ValueError as error:
            raise UsageError(f"webhooks: address {number} of {len(found)}: {error}") from error
    return found


def tell(delivery: Delivery) -> tuple[Outcome, str]:
    """Send it once; what is known of its arrival, and a word on why."""
    return _consumer(urlsplit(delivery.address)).tell(delivery)


def _consumer(parts: SplitResult) -> Consumer:
    consumer = CONSUMERS.get(parts.scheme)
    if consumer is None:
        raise ValueError(f"its scheme is not one of {sorted(CONSUMERS)}")
    return consumer
