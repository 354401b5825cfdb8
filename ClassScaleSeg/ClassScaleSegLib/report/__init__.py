"""The report: one page of all cases, for people, and the same facts as JSON, for programs."""
