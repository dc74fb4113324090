"""Conditional: paths that depend on the input - cascades, early exits, gates, pondering, experts."""
