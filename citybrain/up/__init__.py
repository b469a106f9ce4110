"""A whole city as one command: start in order, watch, stop in order, report."""
