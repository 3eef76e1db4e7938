"""The Kubernetes cluster that the server belongs to: a client, what is read there, and clusters that join by it."""
