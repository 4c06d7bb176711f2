"""What was found: results, signs of masking, files, figures, comparisons."""
