"""Robust accuracy: attacks by name, one engine, reports and plots."""
