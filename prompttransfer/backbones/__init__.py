"""Backbones by name: embedded ones, hub names and local folders, loaded frozen and in the best precision here."""
