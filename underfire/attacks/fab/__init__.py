"""FAB, the fast adaptive boundary attack."""

from underfire.attacks.fab.attack import fab

__all__ = ["fab"]
