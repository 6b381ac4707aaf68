"""The demo's workflow: reserve, charge, ship, notify. Ordinary functions; the services they call are not reliable.

The warehouse, the carrier and the mail service are played by this process: each call takes a while and sometimes fails,
as decided by a seed, the step's key and the attempt. The payment provider is a real other process, reached over HTTP.

The only care taken here is `current().idempotency_key` in `charge`: a step may execute more than once (the worker can
die between the provider's answer and the commit that records it), and the key makes the second request harmless.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast import ExecutorOptions, Holdfast, Retry, WorkerOptions, current, step, workflow
from holdfast.cli.demo.orders import Order

STEPS: Final = ("reserve", "charge", "ship", "notify")
PORT_VARIABLE: Final = "HOLDFAST_DEMO_PROVIDER_PORT"
SEED_VARIABLE: Final = "HOLDFAST_DEMO_SEED"
RUNS_AT_ONCE: Final = 64
FAILURE_SHARE: Final = 0.08
PATIENT: Final = Retry(attempts=12, first_delay=0.05, factor=1.6, max_delay=1.0, jitter=0.3)


class ServiceUnavailable(Exception):
    """A service refused, was too busy, or broke off; the same request may succeed later."""


class ChargeRefused(Exception):
    """The provider understood the request and will never accept it."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished order leaves behind.

    Attributes:
        order_id: the order.
        charge: the provider's number of the charge.
        cents: what was charged.
        tracking: the parcel's number.
    """

    order_id: str
    charge: str
    cents: int
    tracking: str


@step(retry=PATIENT)
async def reserve(item: str, quantity: int) -> str:
    """Set goods aside in the warehouse."""
    number = await _call_service("warehouse", slowest=0.30)
    return f"{quantity} x {item}, shelf {number % 90 + 10}"


@step(retry=Retry(attempts=12, first_delay=0.05, factor=1.6, max_delay=1.0, jitter=0.3, give_up_on=(ChargeRefused,)))
def charge(order_id: str, cents: int) -> str:
    """Charge the customer at the payment provider; a `def` step, so it runs in a thread."""
    connection = HTTPConnection("127.0.0.1", int(os.environ[PORT_VARIABLE]), timeout=10)
    try:
        body = json.dumps({"order": order_id, "cents": cents}).encode()
        connection.request("POST", "/charges", body, {"Idempotency-Key": quote(current().idempotency_key, safe=":")})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, HTTPException) as error:
        raise ServiceUnavailable(f"payment provider: {error!r}") from error
    finally:
        connection.close()
    if response.status == 200:
        return str(answer["charge"])
    failure = ServiceUnavailable if response.status >= 500 else ChargeRefused
    raise failure(f"payment provider: {response.status} {answer['error']}")


@step(retry=PATIENT)
async def ship(order_id: str, reservation: str) -> str:
    """Hand the parcel to the carrier."""
    number = await _call_service("carrier", slowest=0.40)
    return f"PK{number % 10**9:09d}"


@step(retry=PATIENT)
async def notify(customer: str, tracking: str) -> None:
    """Tell the customer that the parcel is on its way."""
    await _call_service("mail", slowest=0.20)


@workflow
async def fulfil(order: Order) -> Receipt:
    """One order, from the warehouse to the customer's inbox."""
    reservation = await reserve(order.item, order.quantity)
    payment = await charge(order.order_id, order.cents)
    tracking = await ship(order.order_id, reservation)
    await notify(order.customer, tracking)
    return Receipt(order.order_id, payment, order.cents, tracking)


def make_app(database: Path) -> Holdfast:
    """The app on its database. Few runs at once: an order book has an order, and a kill should find work half done."""
    options = WorkerOptions(execution=ExecutorOptions(runs_max=RUNS_AT_ONCE), stop_timeout=5.0)
    app = Holdfast("sqlite:///" + quote(os.fsencode(database.resolve())), worker=options)
    app.include(fulfil)
    return app


async def _call_service(service: str, *, slowest: float) -> int:
    """Play a call to a service: it takes a while, and may fail. Returns a number that stands for its answer."""
    here = current()
    chance = random.Random(f"{os.environ[SEED_VARIABLE]}/{here.idempotency_key}/{here.attempt}")
    await asyncio.sleep(chance.uniform(slowest / 10, slowest))
    if chance.random() < FAILURE_SHARE:
        raise ServiceUnavailable(f"{service}: {chance.choice(('timed out', 'too busy', 'connection reset'))}")
    return chance.getrandbits(40)
