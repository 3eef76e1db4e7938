"""Several servers as one: where an exchange goes, what is asked of the leader, and who waits for whom."""
