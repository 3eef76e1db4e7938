"""The agent's installation in a cluster: its manifest, and how it is applied."""
