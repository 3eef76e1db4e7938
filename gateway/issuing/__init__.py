"""Users' credentials of Kulvert's own: certificates, tokens and their keys, and what was taken back."""
