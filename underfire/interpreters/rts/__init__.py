"""Real-time saliency (Dabkowski and Gal, NeurIPS 2017): a network that is trained once and explains in one pass."""

from underfire.interpreters.rts.rts import RTS

__all__ = ["RTS"]
