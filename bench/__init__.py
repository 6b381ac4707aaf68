"""Benchmarks: Holdfast beside the disk's own floor and beside other engines, all in one run. Start with `make bench`.

Each engine is measured by a child process of its own that prints one JSON report (`measuring.Report`); the peers run in
environments of their own. `report.py` puts the reports side by side, prints the table and writes `results.json`.
Everything runs with `synchronous=FULL` on a real disk; a directory in memory is refused: a sync costs nothing there.
"""
