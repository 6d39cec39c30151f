"""From wells to what a model reads: aggregate, scale, select."""
