"""Activated neurons: capturing them, keeping their states, switching them off."""
