"""The README's part about benchmarks, written from a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .report import (
    LAYER_ABOUT,
    LAYER_HEADS,
    LAYER_RATIOS,
    RABBIT_HEADS,
    RABBIT_RATIOS,
    RATIOS,
    SERVERS_ABOUT,
    SQL_HEADS,
    SQL_RATIOS,
    Rows,
    ratios,
)

__all__ = ["update"]
README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"
# Those that matter, also those that others win; all are in docs/benchmarks.md.
SHOWN = tuple(
    pair
    for pair in RATIOS
    if pair[0]
    in {
        "consume, threads; Celery threads",
        "consume, gevent; Celery gevent",
        "consume, threads; funboost",
        "consume, threads; dramatiq",
        "consume, SQLite; persist-queue, same durability",
        "`push`; redis-py's LPUSH of the same bytes",
        "`push`; Celery's `delay`",
        "`push`, SQLite; persist-queue's `put`, same durability",
        "round trip in ms, median; Celery's `delay().get()`",
    }
)
LAYER_SHOWN = tuple(pair for pair in LAYER_RATIOS if not pair[0].endswith(", Django"))


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
    parts = [about, ratios(rows, SHOWN)]
    if text := ratios(rows, LAYER_SHOWN, LAYER_HEADS):
        parts += [LAYER_ABOUT, text]
    if text := ratios(rows, RABBIT_RATIOS, RABBIT_HEADS):
        parts += [SERVERS_ABOUT, text]
    if text := ratios(rows, SQL_RATIOS, SQL_HEADS):
        parts.append(text)
    parts.append(_rates(rows))
    more = "All tables, settings and commands: [docs/benchmarks.md](docs/benchmarks.md)."
    return "\n\n".join([part for part in parts if part] + [more])


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
