"""Segment on a server of ClassScaleSeg: the client, which needs requests, SimpleITK and NumPy alone."""
