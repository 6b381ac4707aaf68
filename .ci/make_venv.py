"""Create a virtual environment with pip in it: `python3 .ci/make_venv.py DIRECTORY`.

The standard `venv` does this alone, except where a distribution ships Python without `ensurepip` (Debian without
`python3-venv`). There pip itself is fetched from the index: a wheel of pip can install itself. So a machine with
nothing but `python3` and an index is enough. `PIP_INDEX_URL` and `PIP_CERT` are respected, as pip respects them.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path

OLDEST_PYTHON = (3, 11)


def main() -> None:
    """Create the environment named by the first argument, replacing what is there."""
    if sys.version_info < OLDEST_PYTHON:
        found = sys.version.split()[0]
        sys.exit(f"error: Python 3.11 or newer is needed, this is {found} (hint: make PYTHON=python3.12)")
    directory = Path(sys.argv[1])
    venv.create(directory, with_pip=False, clear=True, symlinks=True)
    python = directory / "bin" / "python"
    bundled = subprocess.run([python, "-m", "ensurepip", "--default-pip"], check=False, capture_output=True)
    if bundled.returncode != 0:
        fetch_pip(python)


def fetch_pip(python: Path) -> None:
    """Fetch the newest wheel of pip from the index and let it install itself into the environment of `python`."""
    print("this Python has no ensurepip: fetching pip from the package index", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = fetch_pip_wheel(Path(scratch))
        subprocess.run([python, f"{wheel}/pip", "install", "--quiet", str(wheel)], check=True)


def fetch_pip_wheel(scratch: Path) -> Path:
    """Download the newest released wheel of pip and check its digest."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    page_url = f"{index}/pip/"
    newest = max(wheels_on(fetch(page_url).decode()), key=release_number)
    address, _, digest = newest.partition("#sha256=")
    wheel = scratch / address.rsplit("/", 1)[-1]
    wheel.write_bytes(fetch(urllib.parse.urljoin(page_url, address)))
    if digest and hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
        sys.exit(f"error: the digest of {wheel.name} is not the one that the index states")
    return wheel


def fetch(url: str) -> bytes:
    """Read a page or file of the index."""
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    request = urllib.request.Request(url, headers={"Accept": "text/html, */*;q=0.5"})
    with urllib.request.urlopen(request, context=context) as response:
        return bytes(response.read())


def wheels_on(page: str) -> list[str]:
    """The addresses, with their digests, of the wheels on an index page that were not withdrawn."""
    anchors = re.findall(r"<a\s([^>]*)>", page)
    addresses = [re.search(r'href="([^"]+)"', anchor) for anchor in anchors if "data-yanked" not in anchor]
    return [html.unescape(found[1]) for found in addresses if found and "-none-any.whl" in found[1]]


def release_number(address: str) -> tuple[int, ...]:
    """``(26, 1, 2)`` of ``.../pip-26.1.2-py3-none-any.whl``; a pre-release counts as older than every release."""
    version = address.rsplit("/", 1)[-1].split("-")[1]
    return tuple(int(part) for part in version.split(".")) if version.replace(".", "").isdigit() else ()


if __name__ == "__main__":
    main()
