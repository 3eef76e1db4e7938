"""Which clusters there are: how they come in, what is so of them, and how they leave."""
