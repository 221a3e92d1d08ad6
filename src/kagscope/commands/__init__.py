"""The commands of the command line, one module each; :mod:`kagscope.cli` gathers them."""
