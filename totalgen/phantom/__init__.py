"""A synthetic cohort with known truth: a parametric torso, its tracer uptake, a scanner; no evidence about patients."""

from totalgen.phantom.cohort import plan_cohort, write_cohort
from totalgen.phantom.population import draw_demographics
from totalgen.phantom.subject import PhantomSubject, make_subject

__all__ = ["PhantomSubject", "draw_demographics", "make_subject", "plan_cohort", "write_cohort"]
