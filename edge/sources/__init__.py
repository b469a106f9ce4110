"""Where readings come from: one file a source, and a line in the table of `edge.registry`."""
