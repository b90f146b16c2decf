"""How well ray samplers use their rays."""

from vipocc.evaluation.sampler.evaluate import METRICS, evaluate_sampler

__all__ = ["METRICS", "evaluate_sampler"]
