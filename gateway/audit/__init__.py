"""Who did what where: records as audit.k8s.io/v1 Events, the policy that chooses them, and the places they go to."""
