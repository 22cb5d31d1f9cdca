"""A synthetic cohort with known truth: a parametric torso, its tracer uptake, a scanner; no evidence about patients."""

from totalgen.phantom.phantom_cohort import plan_cohort, write_cohort
from totalgen.phantom.population import sample_demographics
from totalgen.phantom.subject import PhantomSubject, make_subject

__all__ = ["PhantomSubject", "sample_demographics", "make_subject", "plan_cohort", "write_cohort"]
