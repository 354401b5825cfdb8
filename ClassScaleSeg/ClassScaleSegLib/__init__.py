"""Everything of ClassScaleSeg that runs without Qt."""
