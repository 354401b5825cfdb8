"""Training cases: raw datasets, conversions of datasets, generators of synthetic cases."""
