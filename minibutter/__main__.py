"""`python -m minibutter` is the command `minibutter`."""

from minibutter.cli import main

main()
