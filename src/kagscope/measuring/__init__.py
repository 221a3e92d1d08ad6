"""The one road: a network and inputs are observed to a state, compared with baselines to a table, and told as a report."""
