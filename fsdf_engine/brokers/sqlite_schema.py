"""The tables of a SQLite file, and what brings those of earlier versions up to date."""

from __future__ import annotations

__all__ = ["EXPIRE", "EXPIRING", "STAGE", "VERSION", "stage_of", "upgrade"]

VERSION = 2  # what a file says of its format (`user_version`): who knows a lower one only, refuses
STAGE = 1  # what was added since (`application_id`): workers of before go on beside it
_OURS = 0x66736400  # "fsd"; the last byte is the stage
# message.due: 0 waiting, an instant: delayed until then, NULL: leased. What is leased is in neither
# index; `lease.seqs` finds it. `left` counts the unsettled. The body comes last, so that the other
# columns are read without it.
_SCHEMA = """
BEGIN IMMEDIATE;
%s
CREATE TABLE IF NOT EXISTS message (
    seq INTEGER PRIMARY KEY, due REAL DEFAULT 0, lease INTEGER, deliveries INTEGER DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0, published REAL DEFAULT 0, queue TEXT NOT NULL,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))), state TEXT, headers TEXT,
    body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS message_waiting ON message (queue, priority DESC, seq) WHERE due = 0;
CREATE INDEX IF NOT EXISTS message_delayed ON message (queue, due) WHERE due > 0;
CREATE TABLE IF NOT EXISTS lease (
    token INTEGER PRIMARY KEY, ends REAL NOT NULL, queue TEXT NOT NULL, count INTEGER NOT NULL,
    seqs TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS lease_ends ON lease (queue, ends);
CREATE TABLE IF NOT EXISTS dead (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, id TEXT NOT NULL,
    priority INTEGER, published REAL, headers TEXT, at REAL, reason TEXT, trace TEXT, body BLOB);
CREATE INDEX IF NOT EXISTS dead_queue ON dead (queue, seq);
CREATE TABLE IF NOT EXISTS result (
    id TEXT PRIMARY KEY, deliveries INTEGER NOT NULL, final INTEGER NOT NULL, expires REAL NOT NULL,
    body BLOB NOT NULL, sends INTEGER NOT NULL DEFAULT 0, origin TEXT NOT NULL DEFAULT '',
    attempt INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS result_expires ON result (expires);
CREATE TABLE IF NOT EXISTS watch (
    id TEXT, address TEXT, expires REAL NOT NULL, PRIMARY KEY (id, address));
CREATE INDEX IF NOT EXISTS watch_expires ON watch (expires);
CREATE TABLE IF NOT EXISTS mark (
    name TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL, lapses REAL);
CREATE INDEX IF NOT EXISTS mark_expires ON mark (expires) WHERE expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS mark_lapses ON mark (lapses) WHERE lapses IS NOT NULL;
PRAGMA user_version = %d;
PRAGMA application_id = %d;
COMMIT;
"""
_TO_2 = """
ALTER TABLE result ADD COLUMN sends INTEGER NOT NULL DEFAULT 0;
ALTER TABLE result ADD COLUMN origin TEXT NOT NULL DEFAULT '';
"""
_TO_ATTEMPTS = "ALTER TABLE result ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;"
# Of a table in EXPIRING; values: now, how many at most. O(deleted log n).
EXPIRING = ("result", "watch", "mark")
EXPIRE = "DELETE FROM {0} WHERE rowid IN (SELECT rowid FROM {0} WHERE expires <= ? LIMIT ?)"


def stage_of(application_id: int) -> int:
    """Return the stage that a file says it has; 0 where it says nothing."""
    return application_id - _OURS if application_id & ~0xFF == _OURS else 0


def upgrade(version: int, stage: int) -> str:
    """Return the statements that make the tables, or bring those of a file up to date."""
    steps = _TO_2 if version == 1 else ""
    if version and stage < 1:
        steps += _TO_ATTEMPTS
    return _SCHEMA % (steps, VERSION, _OURS + STAGE)
