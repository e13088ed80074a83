"""The README's part about benchmarks, written from a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .report import FSDF, Rows, median, ratios

__all__ = ["update"]
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"


def update(report: dict[str, Any], path: Path = README) -> None:
    """Replace what stands between the two marks."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path} lacks the lines {BEGIN.strip()} and {END}")
    path.write_text(f"{before}{begin}\n{_block(report)}\n\n{end}{after}", encoding="utf-8")


def _block(report: dict[str, Any]) -> str:
    rows, machine, versions = report["rows"], report["machine"], report["versions"]
    options = report["options"]
    about = (
        f"No-op tasks on {machine['cores']} cores shared with Redis {machine['redis_server']}, "
        f"CPython {machine['python']}, 50 slots in one worker, results off, quiet logs; on all "
        f"sides at least once, where nothing else is said (Celery {versions['celery']} with "
        f"`acks_late`, funboost {versions['funboost']} `REDIS_ACK_ABLE`); medians of up to "
        f"{options['runs']} interleaved runs, each side measured for {options['window']:g} s and "
        f"more, {report['started'][:10]}. Ratios hold better over machines than the figures do."
    )
    parts = [about, ratios(rows), _waits(rows), _rates(rows)]
    more = "All tables, settings and commands: [docs/benchmarks.md](docs/benchmarks.md)."
    return "\n\n".join([part for part in parts if part] + [more])


def _waits(rows: Rows) -> str:
    """Round trips, and workers with nothing to do."""
    lines = [
        "| | round trip, ms: median (99 %) | waking up, ms: median (99 %) | idle: CPU, % |"
        " Redis commands/s | RSS, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = (f"{FSDF} threading", "fsdf SQLite threading", "fsdf_compat threads", "celery threads")
    for name in names:
        if median(rows, "idle", name, "rss") is not None:
            idle = [median(rows, "idle", name, key) or 0.0 for key in ("cpu", "commands", "rss")]
            cells = [name, *(_pair(rows, scenario, name) for scenario in ("round_trip", "wake"))]
            cells += [f"{idle[0]:.2f}", f"{idle[1]:.1f}", f"{idle[2]:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _pair(rows: Rows, scenario: str, name: str) -> str:
    low, high = (median(rows, scenario, name, key) for key in ("p50", "p99"))
    return "" if low is None or high is None else f"{low:.2f} ({high:.2f})"


def _rates(rows: Rows) -> str:
    found = [row for row in rows if row["scenario"] == "qps" and "failed" not in row]
    if not found:
        return ""
    wanted = {row["name"]: float(row["name"].partition("=")[2]) for row in found}
    error = max(abs(row["error"]) for row in found)
    over = max((row["most"] - wanted[row["name"]] - 1) / wanted[row["name"]] for row in found)
    return (
        f"`qps=` over 30 s, measured at the function's first line, for {min(wanted.values()):g} to "
        f"{max(wanted.values()):,.0f} starts a second: off by at most {max(error, 0.001):.3f} %, "
        f"and no second of all that slide over them had more than `qps` + 1 + "
        f"{max(over, 0.0) * 100:.1f} % starts."
    )
