"""Grade the assignments."""
