"""The Qt parts of the module's panel. Only ``ClassScaleSeg.py`` imports them, where there is an application."""
