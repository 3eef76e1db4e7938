"""`kulvert serve --workers N`: one parent process, and N children that share the work of one machine."""
