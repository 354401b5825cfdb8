"""The models that can be used: embedded, downloadable, and the user's own."""

from .catalog import Catalog

__all__ = ["Catalog"]
