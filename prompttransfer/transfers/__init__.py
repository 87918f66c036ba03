"""Adaptations of source tasks on target tasks: unchanged, as initialisation, compared, recommended."""
