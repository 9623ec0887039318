"""`python -m stand_in_engine serve …`."""

from stand_in_engine.cli import main

main()
