"""Speed and memory, side by side with a plain implementation of what was published."""
