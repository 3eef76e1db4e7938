"""Users by the tokens of OIDC issuers, in Kubernetes' own configuration format."""
