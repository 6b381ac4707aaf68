"""Named SQL statements out of a `.sql` file that ships with the package.

    -- name: start_run
    -- Why the statement is as it is; kept as its documentation.
    insert into ...;

All SQL of a store is in one such file, so that it can be read, reviewed and explained as SQL, and so that two stores
can be compared name by name. A file that is malformed is our own defect and is found when the store is built, never
when a statement is first needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Final

from holdfast.errors import InternalError

_MARK: Final = "-- name:"


class Statements(dict[str, str]):
    """Statement text by name, in the order of the file, without the closing semicolon.

    A plain dict in speed, since hot paths look statements up; asking for a name that does not exist is our defect.

    Attributes:
        docs: the comment below each name.
        source: the name of the file.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.docs: dict[str, str] = {}

    def __missing__(self, name: str) -> str:
        raise InternalError(f"{self.source} has no statement {name!r}")


@cache
def load(name: str) -> Statements:
    """Read and parse `name`, a file beside this module. Once: a process short of descriptors may open another app.

    Raises:
        InternalError: it is malformed.
    """
    return parse((Path(__file__).parent / name).read_text("utf-8"), source=name)


def parse(text: str, *, source: str) -> Statements:
    """Parse the text of a file; `source` names it in errors.

    Raises:
        InternalError: a name is empty or given twice, a statement is empty, or SQL stands before the first name.
    """
    statements = Statements(source)
    for name, lines in _blocks(text, source):
        doc = list(takewhile(_is_comment, lines))
        sql = "\n".join(lines[len(doc) :]).strip().removesuffix(";").rstrip()
        if not name or not sql:
            raise InternalError(f"{source}: statement {name!r} is empty or has no name")
        if name in statements:
            raise InternalError(f"{source}: two statements are named {name!r}")
        statements[name] = sql
        statements.docs[name] = "\n".join(line.strip().removeprefix("--").strip() for line in doc)
    return statements


def _blocks(text: str, source: str) -> Iterator[tuple[str, list[str]]]:
    lines = text.splitlines()
    rest = list(dropwhile(lambda line: not line.startswith(_MARK), lines))
    head = lines[: len(lines) - len(rest)]
    if any(line.strip() and not _is_comment(line) for line in head):
        raise InternalError(f"{source}: SQL before the first `{_MARK}` line")
    while rest:
        name = rest[0].removeprefix(_MARK).strip()
        body = list(takewhile(lambda line: not line.startswith(_MARK), rest[1:]))
        yield name, body
        rest = rest[len(body) + 1 :]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("--")
