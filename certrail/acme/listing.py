"""The orders of an account (RFC 8555 section 7.1.2.1): how a lost order is found again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from certrail.acme.order import read_order
from certrail.acme.reply import Reply
from certrail.errors import ConnectorError
from certrail.log import logger
from certrail.model import Order, OrderKey, OrderStatus

_MOST_ORDERS = 300
_MOST_PAGES = 100
_UNFINISHED = (OrderStatus.PENDING, OrderStatus.READY)


def unfinished(
    fetch: Callable[[str, str], Reply], account_url: str, names: Sequence[str]
) -> tuple[Order, ...]:
    """Return the account's pending and ready orders for exactly *names*.

    Many CAs, Let's Encrypt among them, list no orders; they hand out an
    unfinished order again when the same names are ordered, so nothing is lost
    by an empty answer.

    Args:
        fetch: asks for a URL (and says what it is) as the account.
        account_url: of the account.
        names: subject alternative names in canonical text.
    """
    wanted = set(names)
    found = []
    for url in _urls(fetch, account_url):
        try:
            reply = fetch(url, "order")
            blank = Order(
                OrderKey(""),
                url,
                OrderStatus.PENDING,
                data={"names": list(names), "account": account_url},
            )
            order = read_order(reply, blank)
        except ConnectorError as exc:
            logger.warning("an order in the account's list cannot be read: %s", exc)
            continue
        if order.status in _UNFINISHED and _names(reply) == wanted:
            found.append(order)
    return tuple(found)


def _urls(fetch: Callable[[str, str], Reply], account_url: str) -> Iterator[str]:
    page = fetch(account_url, "account").json().get("orders")
    seen = 0
    # Pages are counted too: a list whose pages are empty could go on for ever.
    for _ in range(_MOST_PAGES):
        if not isinstance(page, str) or not page or seen >= _MOST_ORDERS:
            return
        reply = fetch(page, "list of orders")
        urls = reply.json().get("orders")
        for url in urls if isinstance(urls, list) else ():
            seen += 1
            if isinstance(url, str):
                yield url
        page = next(iter(reply.links("next")), None)


def _names(reply: Reply) -> set[str]:
    identifiers = reply.json().get("identifiers")
    return {
        str(each.get("value", "")).lower()
        for each in (identifiers if isinstance(identifiers, list) else ())
        if isinstance(each, dict)
    }
