"""Cohorts: many cases, on this machine or on a cluster, and what is known of each."""
