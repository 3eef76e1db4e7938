"""What replicas of one installation share of their files and keys, through Secrets of the hub."""
