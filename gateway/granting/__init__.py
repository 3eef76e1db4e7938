"""Grants as the server keeps and serves them; `auth.grants` decides."""
