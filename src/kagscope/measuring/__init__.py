"""The one road: a network and inputs are observed as a state, compared with baselines in a table, and presented as a report."""
