"""Routes: one algorithm a file, behind the protocol of :mod:`kagscope.minors.task`; ``auto`` chooses among them."""
