"""Tables that rooms hand to each other: columns, means with intervals, onset."""
