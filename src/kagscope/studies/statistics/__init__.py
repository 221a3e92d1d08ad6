"""Tests and intervals for claims, phase diagrams, comparisons, trends and relations, as functions of arrays.

=========================== ==========================================================================================
:mod:`~.student`            mean over nets, difference of pairs or of two groups: test and interval
:mod:`~.bootstrap`          intervals over nets and data points, also of statistics other than means
:mod:`~.permutation`        the same without assuming normality: on two sides from six seeds, on one (claims) from five
:mod:`~.kendall`            monotone trends over ordered levels
:mod:`~.mixed_model`        effects of all axes at once, with random intercepts of groups of nets
:mod:`~.multiple_testing`   Holm, and Westfall and Young's step-down max T
=========================== ==========================================================================================

``docs/studies_statistics.md`` says which of them answers which question, and why.
"""
