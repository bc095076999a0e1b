"""Export of what was learned to other tools, one file a format; `formats.py` has the list."""
