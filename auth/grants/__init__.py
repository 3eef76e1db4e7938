"""Who may reach which clusters, for what, and as whom. Pure decisions."""
