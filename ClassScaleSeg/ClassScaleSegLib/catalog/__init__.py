"""The models that can be had: embedded, downloaded, the user's own."""

from .catalog import Catalog

__all__ = ["Catalog"]
