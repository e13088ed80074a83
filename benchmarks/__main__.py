"""The command: `python -m benchmarks`; writes results/<date>.json, and from it the documents."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .bench import Bench, Options
from .readme import update
from .report import document, surroundings
from .scenarios import SCENARIOS

RESULTS = Path(__file__).resolve().parent / "results"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def _options(arguments: list[str]) -> tuple[Options, Path]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of 1 s windows: to try it")
    parser.add_argument("--runs", type=int, help="interleaved runs, default 3")
    parser.add_argument("--window", type=float, help="seconds each side is measured, default 8")
    parser.add_argument("--messages", type=int, default=0, help="instead of what the window needs")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="contestants by part of a name"
    )
    parser.add_argument(
        "--scenario", action="append", default=[], choices=list(SCENARIOS), help="default: all"
    )
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument(
        "--publish", type=Path, nargs="+", metavar="JSON",
        help="only write the documents from such results; several are further runs of the first",
    )  # fmt: skip
    chosen = parser.parse_args(arguments)
    if chosen.publish:
        _publish(_merged([json.loads(path.read_text()) for path in chosen.publish]))
        raise SystemExit(0)
    if chosen.runs is None:
        chosen.runs = 1 if chosen.quick else 3
    if chosen.window is None:
        chosen.window = 1.0 if chosen.quick else 8.0
    options = Options(
        chosen.runs,
        chosen.window,
        chosen.messages,
        chosen.quick,
        tuple(chosen.only),
        tuple(chosen.scenario),
    )
    return options, chosen.output or RESULTS


def _write(report: dict[str, Any], folder: Path, complete: bool) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = report["started"][:19].replace(":", "").replace("T", "-")
    (folder / f"{stamp}.json").write_text(json.dumps(report, indent=1) + "\n")
    text = document(report)
    if complete and folder == RESULTS:
        _publish(report)
    return text


def _merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report of several. What the last has measured in three runs, or is measured once only,
    replaces what was there; who is no contestant any more is left out.
    """
    whole, *others = reports
    for other in others:
        last = max(row["run"] for row in whole["rows"])
        again = {
            (row["scenario"], row["name"])
            for row in other["rows"]
            if row["scenario"] in ("qps", "idle", "wake") or row["run"] >= 3
        }
        gone = {one["name"] for one in whole["contestants"]}
        gone -= {one["name"] for one in other["contestants"]}
        rows = [
            row
            for row in whole["rows"]
            if (row["scenario"], row["name"]) not in again
            and row["name"].partition(", ")[0] not in gone
        ]
        rows += [{**row, "run": row["run"] + last} for row in other["rows"]]
        often = Counter((row["scenario"], row["name"]) for row in rows)
        whole = {
            **whole,
            "rows": rows,
            "contestants": other["contestants"],
            "versions": {
                **whole["versions"],
                **{name: it for name, it in other["versions"].items() if it != "absent"},
            },
            "command": f"{whole['command']}; {other['command']} ({other['started'][:10]})",
            "minutes": round(whole["minutes"] + other["minutes"], 1),
            "options": {**whole["options"], "runs": max(often.values())},
        }
    return whole


def _publish(report: dict[str, Any]) -> None:
    DOCS.write_text(document(report))
    update(report)


def _run(bench: Bench) -> Iterator[None]:
    """Run every scenario of every run; yield after each."""
    options = bench.options
    for run in range(1, options.runs + 1):
        for name, scenario in SCENARIOS.items():
            if not options.scenarios or name in options.scenarios:
                print(f"{name}, run {run} of {options.runs}", flush=True)
                scenario(bench, run)
                yield


def main(arguments: list[str]) -> None:
    """Run what was asked for; write the report after every scenario, so that none is lost."""
    options, folder = _options(arguments)
    begun = time.monotonic()
    complete = not (options.quick or options.only or options.scenarios or options.messages)
    text = ""
    with Bench.opened(options) as bench:
        report: dict[str, Any] = {
            "command": shlex.join(["python", "-m", "benchmarks", *arguments]),
            "started": datetime.now(timezone.utc).isoformat(),
            "minutes": 0.0,
            "options": {"runs": options.runs, "window": options.window, "quick": options.quick},
            **surroundings(bench),
            "rows": bench.rows,
        }
        for _ in _run(bench):
            report["minutes"] = round((time.monotonic() - begun) / 60, 1)
            text = _write(report, folder, complete)
    print(f"\n{text}\nwritten to {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
