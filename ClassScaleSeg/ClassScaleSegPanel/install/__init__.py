"""Python packages that the run needs: what is missing, the question, and the installation."""
