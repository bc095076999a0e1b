"""Output for people: tables for the terminal, predictions as text, pictures as PNG files.

Nothing here computes a result: the input is plain Python values and NumPy arrays. Accuracies are fractions and are
shown in percent.
"""
