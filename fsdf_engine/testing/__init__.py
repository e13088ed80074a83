"""Conformance suites for authors of brokers, pools and stores; they need pytest."""
