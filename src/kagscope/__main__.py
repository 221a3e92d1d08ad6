"""``python -m kagscope``: the command line where the script ``kagscope`` is not on the path."""

from kagscope.cli import main

main()
