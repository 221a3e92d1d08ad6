"""The engine: exact moments of the minors of any matrix. Import from :mod:`kagscope`; this package knows arrays only."""
