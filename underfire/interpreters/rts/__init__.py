"""Real-time saliency (Dabkowski and Gal, NeurIPS 2017): a second network, trained once, explains in one pass."""

from underfire.interpreters.rts.rts import RTS

__all__ = ["RTS"]
