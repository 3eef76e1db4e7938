"""The agents' side of the server: their door, their sessions, and exchanges through them."""
