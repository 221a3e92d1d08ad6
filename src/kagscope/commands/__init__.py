"""Commands of the command line, one module each; :mod:`kagscope.cli` collects them."""
