"""The product's collections that only log: written at any time, removed by age, and no part of its settings."""

LOG_COLLECTIONS = frozenset({"apinizer_log", "audit_event"})
