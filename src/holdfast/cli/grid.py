"""Columns of text: as wide as what stands in them, never cut, no trailing blanks.

Rich's tables shrink their columns to the terminal. Here an id must stay whole, so that it can be copied: a line that
does not fit goes on beyond the edge. Only the last column gives way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.text import Text

from holdfast.cli.harmless import one_line

GAP = 2
LAST_CELLS_MIN = 16


def grid(
    captions: Sequence[str],
    rows: Sequence[Sequence[Text]],
    *,
    right: Collection[str] = (),
    last_fits: int | None = None,
) -> Text:
    """All rows below their captions.

    Args:
        captions: one for each column.
        rows: their cells.
        right: captions of the columns that are aligned to the right.
        last_fits: the terminal's width, to which the last column is cut, or without which it is left out.
    """
    table = [[Text(caption, style="dim") for caption in captions], *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(row[column].cell_len for row in table) for column in range(len(captions))]
    if last_fits is not None:
        room = last_fits - sum(widths[:-1]) - GAP * (len(widths) - 1)
        if room < LAST_CELLS_MIN:
            return grid(captions[:-1], [row[:-1] for row in rows], right=right)
        widths[-1] = min(widths[-1], room)
    return Text("\n").join(_line(row, widths, [caption in right for caption in captions]) for row in table)


def _cell(cell: Text) -> Text:
    """On one line, whatever is in it."""
    plain = one_line(cell.plain)
    if plain != cell.plain:
        cell = cell.copy()
        cell.plain = plain
    return cell


def _line(cells: Sequence[Text], widths: Sequence[int], to_right: Sequence[bool]) -> Text:
    line = Text()
    for cell, width, right in zip(cells, widths, to_right, strict=True):
        cell.truncate(width, overflow="ellipsis")
        blanks = " " * (width - cell.cell_len)
        if right:
            line.append(blanks)
        line.append_text(cell)
        line.append(" " * GAP if right else f"{blanks}{' ' * GAP}")
    line.rstrip()
    return line
