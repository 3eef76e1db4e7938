"""The parts of which `gateway.server` composes a server: each makes one concern's objects from the settings."""
