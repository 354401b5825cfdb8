"""From the choices to a run: what is missing, Apply, the queue and the report."""
