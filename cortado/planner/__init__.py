"""The planner: limits in, the mix of methods that keeps them at least cost out."""
