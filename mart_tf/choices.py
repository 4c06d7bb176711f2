"""Names that programs check before TensorFlow is imported."""

# Norms of a threat model.
NORMS = ("linf", "l2")

# Starts of an attack, see `ThreatModel.random_start`.
RANDOM_STARTS = ("uniform", "gaussian", "none")

# What a classifier may return.
OUTPUTS = ("logits", "probabilities")

# What an exported version may answer to.
SIGNATURES = ("serving_default", "image_bytes", "classify")

# Seeds are int64, with room for what is folded into them.
GREATEST_SEED = 2**31 - 1
