"""The payment provider, as a real process: one charge per key, a ledger that is written before it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path

import pytest

from holdfast.cli.demo import provider

ATTEMPTS_MAX = 50


class Service:
    def __init__(self, ledger: Path) -> None:
        command = [sys.executable, "-I", provider.__file__, str(ledger), "7"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self._ledger = ledger

    def post(self, body: object, *, key: str, path: str = "/charges") -> tuple[int, dict[str, str]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, json.dumps(body).encode(), {"Idempotency-Key": key} if key else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def charge(self, order: str, cents: int, *, key: str) -> tuple[str, int]:
        """Try until it is answered; the charge, and how often the connection was dropped."""
        drops = 0
        for _ in range(ATTEMPTS_MAX):
            try:
                status, answer = self.post({"order": order, "cents": cents}, key=key)
            except RemoteDisconnected:
                drops += 1
                continue
            if status == 200:
                return answer["charge"], drops
            assert status == 503
        raise AssertionError(f"no answer in {ATTEMPTS_MAX} attempts")

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._ledger.read_text().splitlines()]

    def end(self) -> tuple[int, bytes]:
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "ledger.jsonl")
    yield service
    if service.process.returncode is None:
        service.process.kill()
        service.end()


def test_the_same_key_is_charged_once_and_counted_as_repeat(service: Service) -> None:
    first, drops = service.charge("A1", 995, key="k1")
    again, more_drops = service.charge("A1", 995, key="k1")
    assert first == again
    kinds = [line["kind"] for line in service.lines()]
    assert kinds == ["charge"] + ["repeat"] * (1 + drops + more_drops)


def test_another_key_is_another_charge(service: Service) -> None:
    first, _ = service.charge("A1", 995, key="k1")
    second, _ = service.charge("A1", 995, key="k2")
    assert first != second


def test_a_dropped_connection_has_charged_all_the_same(service: Service) -> None:
    for number in range(ATTEMPTS_MAX):
        charge, drops = service.charge(f"A{number}", 100, key=f"k{number}")
        if drops:
            break
    else:
        raise AssertionError("the provider never dropped a connection")
    assert [line["kind"] for line in service.lines() if line["charge"] == charge] == ["charge"] + ["repeat"] * drops


def test_a_key_cannot_be_used_for_another_amount(service: Service) -> None:
    service.charge("A1", 995, key="k1")
    for _ in range(ATTEMPTS_MAX):
        status, answer = service.post({"order": "A1", "cents": 996}, key="k1")
        if status != 503:
            break
    assert status == 409
    assert "995" in answer["error"]


@pytest.mark.parametrize(
    ("body", "key", "path"),
    [
        ({"order": "A1", "cents": 1}, "", "/charges"),
        ({"order": "A1", "cents": 1}, "k", "/elsewhere"),
        ({"order": "A1", "cents": "1"}, "k", "/charges"),
        ({"order": "A1", "cents": True}, "k", "/charges"),
        ({"order": "A1", "cents": 0}, "k", "/charges"),
        ({"order": 1, "cents": 1}, "k", "/charges"),
        ({"cents": 1}, "k", "/charges"),
        ([], "k", "/charges"),
    ],
)
def test_a_request_that_is_no_charge_is_refused_and_not_written(
    service: Service, body: object, key: str, path: str
) -> None:
    status, _ = service.post(body, key=key, path=path)
    assert status == 400
    assert service.lines() == []


def test_it_ends_when_its_standard_input_ends(service: Service) -> None:
    assert service.end() == (0, b"")
