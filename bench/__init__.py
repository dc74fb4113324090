"""Every published figure of ours: one command, its seeds, its log, its JSON result."""
