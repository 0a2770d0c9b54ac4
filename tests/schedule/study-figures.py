#!/usr/bin/env python3
"""Prints the figures of `STUDY` in src/schedule/learn/plan_tests.rs: polls and weighted delay of the study's optimum.

Usage: study-figures.py PATH/TO/schedule-study.py (needs numpy). The study is not part of this repository.
"""
import importlib.util
import sys
from math import erf, log, sqrt

import numpy as np

spec = importlib.util.spec_from_file_location("study", sys.argv[1])
study = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)

# Median and spread of the log-normal lives in seconds, and the share of slow ones.
KINDS = {"sms": (4, 1.0, 0.05), "mixed": (6, 1.5, 0.10), "call": (35, 0.5, 0.05)}


def survival(kind, ages):
    """The share of PINs that are not final at each age."""
    median, sigma, slow = KINDS[kind]
    below = lambda age, m, s: 0.5 * (1 + erf(log(max(age, 1e-9) / m) / s / sqrt(2)))
    share = lambda age: 1 - (1 - slow) * below(age, median, sigma) - slow * below(age, 3600, 1.5)
    return np.array([0.0 if age >= 172_000 else share(age) for age in ages])


def cost(kind, ages):
    """Polls and weighted delay of polls at these ages, summed over the distribution at 400,000 ages."""
    fine = np.concatenate([[0], np.geomspace(1e-3, study.END, 400_001)])
    ended, middle = np.diff(1 - survival(kind, fine)), (fine[1:] + fine[:-1]) / 2
    at = np.minimum(np.searchsorted(ages, middle), len(ages) - 1)
    delay = np.maximum(ages[at] - middle, 0) * study.value(middle)
    return float((ended * (at + 1)).sum()), float((ended * delay).sum())


for kind in KINDS:
    for price in (0.5, 1.0, 8.0):
        ages = study.optimum(np.maximum(survival(kind, study.GRID), 1e-6), price, 3600.0)
        print(kind, price, *(f"{figure:.4f}" for figure in cost(kind, ages)))
