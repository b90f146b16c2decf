"""The demo: a small synthetic world through every stage, by the commands a user types, with a page at the end."""

from vipocc.apps.demo.run import run_demo
from vipocc.apps.demo.tables import summarise

__all__ = ["run_demo", "summarise"]
