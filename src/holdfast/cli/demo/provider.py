"""The demo's payment provider: a program of its own, standard library only. It imports nothing of Holdfast.

    python -I provider.py LEDGER SEED        prints its port, serves until its standard input ends

``POST /charges`` with a header ``Idempotency-Key`` and a body ``{"order": ..., "cents": ...}`` answers
``{"charge": ...}``. The same key gives the same charge again and is counted as a repeat; the same key with another
order or amount is refused with 409.

The ledger is a file of JSON lines, ``charge`` and ``repeat``. A charge is written and fsynced before it is answered, so
what a client was told is in the file. It is a realistic neighbour: it is slow, it refuses some requests with 503 before
doing anything, and sometimes it charges and then drops the connection, which to a client looks like a failure and would
be paid twice by one that tries again without a key. How it behaves follows from the seed, the key, and how often that
key was seen.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

REFUSED_SHARE: Final = 0.05
DROPPED_SHARE: Final = 0.08
DELAY_SECONDS: Final = (0.03, 0.30)
BODY_BYTES_MAX: Final = 10_000


class KeyReused(Exception):
    """An idempotency key came with another order or amount than before."""


class Ledger:
    """Charges by key, in memory and in a file. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open for the life of the program
        self._charges: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def charge(self, *, key: str, order: str, cents: int) -> str:
        """Charge once per key; durable when this returns.

        Raises:
            KeyReused: the key belongs to another order or amount.
        """
        with self._lock:
            known = self._charges.get(key)
            if known is not None:
                if (known["order"], known["cents"]) != (order, cents):
                    raise KeyReused(f"key {key!r} was used for {known['order']}, {known['cents']} cents")
                self._write({"kind": "repeat", "charge": known["charge"], "key": key})
                return str(known["charge"])
            number = f"ch_{len(self._charges) + 1:06d}"
            line = {"kind": "charge", "charge": number, "key": key, "order": order, "cents": cents}
            self._write(line)
            self._charges[key] = line
            return number

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Moods:
    """How the provider treats each request: slow, refusing, or dropping the connection after its work is done."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()

    def next(self, key: str) -> tuple[float, bool, bool]:
        """Seconds of delay, whether to refuse, and whether to drop the connection after charging."""
        with self._lock:
            times = self._seen[key] = self._seen.get(key, 0) + 1
        chance = random.Random(f"{self._seed}/{key}/{times}")
        delay, fate = chance.uniform(*DELAY_SECONDS), chance.random()
        return delay, fate < REFUSED_SHARE, REFUSED_SHARE <= fate < REFUSED_SHARE + DROPPED_SHARE


class Provider(ThreadingHTTPServer):
    """The service, on a free port of the loopback interface."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, ledger: Ledger, moods: Moods) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ledger = ledger
        self.moods = moods

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle of a request is no error of ours; anything else is reported."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """Charge, or refuse, or charge and drop the connection."""
        try:
            order, key, cents = self._request()
        except (KeyError, TypeError, ValueError) as error:
            self._answer(400, {"error": f"not a charge: {error!r}"})
            return
        provider = cast("Provider", self.server)
        delay, refuses, drops = provider.moods.next(key)
        time.sleep(delay)
        if refuses:
            self._answer(503, {"error": "too busy"})
            return
        try:
            charge = provider.ledger.charge(key=key, order=order, cents=cents)
        except KeyReused as error:
            self._answer(409, {"error": str(error)})
            return
        if not drops:
            self._answer(200, {"charge": charge})

    def _request(self) -> tuple[str, str, int]:
        key = unquote(self.headers["Idempotency-Key"] or "", errors="strict")
        length = int(self.headers["Content-Length"] or "")
        if self.path != "/charges" or not key or not 0 < length <= BODY_BYTES_MAX:
            raise ValueError("POST /charges needs an Idempotency-Key and a small body")
        body = json.loads(self.rfile.read(length))
        if not isinstance(body["order"], str) or type(body["cents"]) is not int or body["cents"] < 1:
            raise ValueError("order must be text and cents a whole number of at least 1")
        return body["order"], key, body["cents"]

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are in the ledger; the log is for what went wrong."""


def main() -> None:
    """Serve until standard input ends: whoever started this program is gone or wants it gone."""
    provider = Provider(Ledger(Path(sys.argv[1])), Moods(sys.argv[2]))
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    print(provider.server_address[1], flush=True)
    while os.read(0, 1024):
        pass
    provider.shutdown()


if __name__ == "__main__":
    main()
