"""The one family of tests and intervals below claims, phase diagrams, comparisons, trends and relations: functions of arrays.

=========================== ==========================================================================================
:mod:`~.student`            mean over nets, difference of pairs or of two groups: test and interval
:mod:`~.bootstrap`          intervals where data points vary beside nets, and of statistics that are no means
:mod:`~.permutation`        mean of paired differences without assuming normality, from six seeds
:mod:`~.signed_rank`        the same one by one and one-sided, with a threshold: the claims
:mod:`~.kendall`            monotone trends over ordered levels
:mod:`~.mixed_model`        effects of all axes at once, nets that belong together sharing an intercept
:mod:`~.spearman`           rank correlations, plain and partial
:mod:`~.multiple_testing`   Holm, and Westfall and Young's step-down max T
=========================== ==========================================================================================

Which question is answered by which, and why, is in ``docs/studies_statistics.md``.
"""
