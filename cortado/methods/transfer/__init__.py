"""Transfer: filters made from fewer base filters by fixed transforms."""
