"""Managed service accounts: tokens of clusters, kept fresh for their holders."""
