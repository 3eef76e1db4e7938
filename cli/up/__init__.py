"""`kulvert up`: server, agent and a cluster in one process, for a first look."""
