"""Which checkpoint of a run is the best by its validations."""

from __future__ import annotations

from collections.abc import Mapping

#: Validation figures of which the smaller is the better.
SMALLER_IS_BETTER = ("abs_rel", "sq_rel", "rmse", "rmse_log")


class Best:
    """The best value of one validation figure so far, and the step that had it."""

    def __init__(self, metric: str, value: float | None = None, step: int | None = None) -> None:
        self.metric, self.value, self.step = metric, value, step
        self._sign = -1.0 if metric.rpartition("/")[2] in SMALLER_IS_BETTER else 1.0

    def improves(self, measured: Mapping[str, float], step: int) -> bool:
        """Return whether a validation has the figure and it is the best so far, and remember it; NaN never is."""
        value = measured.get(self.metric)
        if value is None or value != value:
            return False
        if self.value is not None and self._sign * value <= self._sign * self.value:
            return False
        self.value, self.step = value, step
        return True
