"""One run: trained, evaluated, saved in a directory, resumed, and evaluated again."""
