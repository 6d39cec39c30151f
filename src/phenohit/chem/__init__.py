"""Chemistry: structures, fingerprints, series, scaffolds, alerts. The only place that imports RDKit."""
