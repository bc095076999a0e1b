"""The frozen backbone: its towers with named points, and the rows of its prompts."""
