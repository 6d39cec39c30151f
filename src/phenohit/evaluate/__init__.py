"""Honest numbers: splits, leak checks, metrics, chance levels, comparisons."""
