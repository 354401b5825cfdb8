"""The Qt widgets of the module's panel. Only ``ClassScaleSeg.py`` imports them, because they need the application."""
