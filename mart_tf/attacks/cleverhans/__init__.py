"""CleverHans's own attacks, driven as ours are."""
