"""SavedModel versions for TF Serving: written, run and compared."""
