"""Who holds what, by Leases (coordination.k8s.io/v1): decisions with the time passed in, and tasks that act on them."""
