"""The tables of a SQLite file, and what brings those of earlier versions up to date."""

from __future__ import annotations

__all__ = ["EXPIRE", "FROM_1", "SCHEMA", "VERSION"]

VERSION = 2  # what a file says of its format
# message.due: 0 waiting, an instant: delayed until then, NULL: leased. What is leased is in neither
# index; `lease.seqs` finds it. `left` counts the unsettled. The body comes last, so that the other
# columns are read without it.
SCHEMA = """
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
    body BLOB NOT NULL, sends INTEGER NOT NULL DEFAULT 0, origin TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS result_expires ON result (expires);
CREATE TABLE IF NOT EXISTS watch (
    id TEXT, address TEXT, expires REAL NOT NULL, PRIMARY KEY (id, address));
CREATE INDEX IF NOT EXISTS watch_expires ON watch (expires);
PRAGMA user_version = %d;
COMMIT;
"""
# What brings a file of version 1 to this one.
FROM_1 = """
ALTER TABLE result ADD COLUMN sends INTEGER NOT NULL DEFAULT 0;
ALTER TABLE result ADD COLUMN origin TEXT NOT NULL DEFAULT '';
"""
# Of the table `result` or `watch`; values: now, how many at most. O(deleted log n).
EXPIRE = "DELETE FROM {0} WHERE rowid IN (SELECT rowid FROM {0} WHERE expires <= ? LIMIT ?)"
