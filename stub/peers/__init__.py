"""Between replicas: exchanges, and agents' links, of a cluster that another replica holds."""
