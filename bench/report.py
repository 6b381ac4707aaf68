"""Puts the engines' reports side by side: the table on stdout and `results.json`.

A target is a number from the plan of the first release; whether it is met is said in words, and nothing fails by it:
figures are for people, and a shared machine is noisy.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.measuring import Measure, Report

ENGINE = "holdfast"
COSTS = {"us": 1_000_000, "ms": 1_000, "KB": 1}
"""Units of which less is better, and how many of them are one of the unit that a rate is by."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        measure: its name in Holdfast's report.
        floor: the name of the floor beside it, or nothing.
        peers: whether the peers have a measure of this name to compare with.
        limit: the target; a lower bound for rates, an upper bound for costs and ratios.
        aim: what we hope for beyond the target.
        of_floor: the target bounds the ratio to the floor, not the figure itself.
    """

    label: str
    measure: str
    floor: str = ""
    peers: bool = False
    limit: float | None = None
    aim: float | None = None
    of_floor: bool = False


LINES = (
    Line("sequential steps of one run", "sequential", floor="commit", peers=True, limit=2.0, aim=1.5, of_floor=True),
    Line("concurrent runs", "concurrent", floor="executemany", peers=True, limit=60_000, aim=100_000),
    Line("runs of one step", "runs", floor="executemany", peers=True, limit=15_000),
    Line("starts", "start", floor="executemany", peers=True, limit=50_000),
    Line("def workflow, time of async def", "def", limit=2.0),
    Line("replay of an entry", "replay", limit=10.0),
    Line("import holdfast", "import", limit=100.0),
    Line("recovery of 10,000 runs", "recovery", limit=2_000.0),
    Line("recovery, runs of 10 steps", "recovery_rate", peers=True),
    Line("a sleeping run in memory", "resident_each", peers=True),
    Line("1,000,000 runs: a page of the newest", "list_page", peers=True, limit=10.0),
    Line("1,000,000 runs: a page of a state", "list_page_state", peers=True, limit=10.0),
    Line("1,000,000 runs: the last page", "list_page_last", peers=True, limit=10.0),
    Line("1,000,000 sleeping: waking", "waking", limit=5_000),
    Line("1,000,000 sleeping: resident", "resident", limit=200.0),
    Line("1,000,000 sleeping: starts, of empty", "start_full", limit=80.0),
    Line("1,000,000 due: new work", "new_work"),
    Line("4 processes on a file", "processes_4", peers=True),
    Line("4 processes on a file, of one", "processes_gain", peers=True, limit=70.0),
    Line("4 processes: slowest of fastest", "processes_share", peers=True, limit=50.0),
    Line("4 processes: longest wait", "processes_wait", peers=True),
    Line("start seen by another process", "event_start", limit=20.0),
    Line("finish seen by another process", "event_finish", limit=20.0),
    Line("cancel seen by another process", "event_cancel", limit=20.0),
    Line("idle worker", "idle", limit=0.5),
    Line("1,000,000 searchable: a page of 20", "list_20", limit=10.0),
    Line("1,000,000 searchable: a page of 100", "list_100", limit=10.0),
    Line("1,000,000 searchable: a late page", "list_late", limit=10.0),
    Line("1,000,000 searchable: unlucky pages", "list_unlucky"),
    Line("1,000,000 searchable: count to 10,000", "count_capped"),
    Line("1,000,000 searchable: statistics", "stats"),
    Line("1,000,000 searchable: starts, of empty", "start_searchable", limit=80.0),
    Line("bytes on disk", "bytes"),
    Line("steady runs, nothing pruned", "kept"),
    Line("steady runs, kept for 1 s", "pruned"),
    Line("file at the end, to half time", "growth", limit=1.1),
)


def write_results(path: Path, reports: list[Report], *, load: dict[str, list[float]]) -> None:
    """Write everything that was measured, and where, as JSON."""
    content = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
            "load_average": load,
        },
        "engines": {report.engine: {"facts": report.facts, "measures": as_json(report)} for report in reports},
        "targets": [verdict_as_json(line, reports) for line in LINES],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def as_json(report: Report) -> dict[str, object]:
    """The measures with their medians."""
    return {
        name: {**asdict(measure), "median": measure.value, "repetitions": len(measure.samples)}
        for name, measure in report.measures.items()
    }


def verdict_as_json(line: Line, reports: list[Report]) -> dict[str, object]:
    """What one line of the table says, for programs."""
    return {
        "measure": line.measure,
        "limit": line.limit,
        "aim": line.aim,
        "of_floor": line.of_floor,
        "ratio_to_floor": floor_ratio(line, reports),
        "verdict": verdict(line, reports),
    }


def print_table(reports: list[Report], *, load: dict[str, list[float]]) -> None:
    """Print the table, what was measured how, and on what."""
    peers = [report for report in reports if report.engine not in (ENGINE, "floor")]
    header = ["", "holdfast", "floor", "of floor", *(report.engine for report in peers), "target", ""]
    rows = [header, *(table_row(line, reports, peers) for line in LINES)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first, *others]).rstrip())
    print()
    for report in reports:
        print_notes(report)
    print(f"machine: {os.cpu_count()} cpus, {platform.platform()}, load average {load['before']} to {load['after']}")


def table_row(line: Line, reports: list[Report], peers: list[Report]) -> list[str]:
    """The cells of one line."""
    ours, floor, ratio = find(reports, ENGINE, line.measure), find_floor(line, reports), floor_ratio(line, reports)
    return [
        line.label,
        figure(ours),
        figure(floor),
        "" if ratio is None else f"{ratio:.2f} x",
        *(peer_cell(ours, report.measures.get(line.measure) if line.peers else None) for report in peers),
        target_text(line, ours),
        verdict(line, reports),
    ]


def peer_cell(ours: Measure | None, theirs: Measure | None) -> str:
    """A peer's figure, and how many times better ours is; a share stands for itself."""
    if theirs is None:
        return "-"
    if ours is None or theirs.unit == "%" or 0 in (ours.value, theirs.value):
        return figure(theirs)
    return f"{figure(theirs)} ({merit(ours) / merit(theirs):,.1f} x)"


def merit(measure: Measure) -> float:
    """A figure as a rate, the more the better, so that costs compare, and a latency in us compares with a rate."""
    return COSTS[measure.unit] / measure.value if measure.unit in COSTS else measure.value


def figure(measure: Measure | None) -> str:
    """A value with its unit."""
    if measure is None:
        return ""
    digits = 0 if measure.value >= 1_000 else 1 if measure.value >= 10 else 2 if measure.value >= 0.1 else 3
    return f"{measure.value:,.{digits}f} {measure.unit}"


def target_text(line: Line, ours: Measure | None) -> str:
    """The target in words; its unit is that of our figure."""
    if line.limit is None or ours is None:
        return ""
    sign = "<=" if is_upper_bound(line, ours) else ">="
    unit = "x floor" if line.of_floor else ours.unit
    aim = f" (aim {line.aim:,g})" if line.aim is not None else ""
    return f"{sign} {line.limit:,g} {unit}{aim}"


def verdict(line: Line, reports: list[Report]) -> str:
    """``pass``, ``pass, aim reached`` or ``FAIL``; nothing where there is no target or no figure."""
    ours = find(reports, ENGINE, line.measure)
    value = floor_ratio(line, reports) if line.of_floor else ours.value if ours else None
    if line.limit is None or value is None:
        return ""
    upper = is_upper_bound(line, ours)

    def reached(bound: float) -> bool:
        return value <= bound if upper else value >= bound

    if not reached(line.limit):
        return "FAIL"
    return "pass, aim reached" if line.aim is not None and reached(line.aim) else "pass"


def is_upper_bound(line: Line, ours: Measure | None) -> bool:
    """Costs and ratios are bounded from above, rates and shares from below."""
    return line.of_floor or (ours is not None and not ours.unit.endswith(("/s", "%")))


def floor_ratio(line: Line, reports: list[Report]) -> float | None:
    """Ours divided by the floor: above 1 for a cost, below 1 for a rate."""
    ours, floor = find(reports, ENGINE, line.measure), find_floor(line, reports)
    return None if ours is None or floor is None else ours.value / floor.value


def find_floor(line: Line, reports: list[Report]) -> Measure | None:
    """The floor beside a line, or none."""
    return find(reports, "floor", line.floor) if line.floor else None


def find(reports: list[Report], engine: str, measure: str) -> Measure | None:
    """A measure of an engine, if it was taken."""
    return next((report.measures.get(measure) for report in reports if report.engine == engine), None)


def print_notes(report: Report) -> None:
    """What an engine's figures are."""
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    print(f"{report.engine}: {facts}")
    for name, measure in report.measures.items():
        print(f"  {name}: {figure(measure)}, {spread(measure)}; {measure.note}")


def spread(measure: Measure) -> str:
    """How many samples the median is of, and how far they lie apart."""
    low, high = min(measure.samples), max(measure.samples)
    return f"median of {len(measure.samples)} ({low:,.4g} to {high:,.4g})"


def joined(parts: list[Report]) -> Report:
    """One report of what several processes measured of one engine; what a later one says of the same counts."""
    facts = {name: fact for part in parts for name, fact in part.facts.items()}
    measures = {name: measure for part in parts for name, measure in part.measures.items()}
    return Report(engine=parts[0].engine, facts=facts, measures=measures)


def merged(first: Report, second: Report) -> Report:
    """One report with the samples of both: the floor is measured before and after everything else."""
    measures = {
        name: Measure(unit=measure.unit, samples=measure.samples + second.measures[name].samples, note=measure.note)
        for name, measure in first.measures.items()
    }
    return Report(engine=first.engine, facts=first.facts, measures=measures)
