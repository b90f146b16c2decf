"""`vipocc data check`: what a dataset's folder holds, what each job lacks of it, what is damaged, what it will cost."""

from vipocc.data_manifests.check.report import JOBS, CheckReport
from vipocc.data_manifests.check.run import check

__all__ = ["JOBS", "CheckReport", "check"]
