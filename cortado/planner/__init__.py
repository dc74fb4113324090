"""The planner: finds the combination of methods with the smallest loss within limits."""
