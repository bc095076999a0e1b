"""One run: from settings to a directory and a result; resumed and evaluated again."""
