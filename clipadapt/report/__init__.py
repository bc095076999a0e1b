"""Results for people: tables for the terminal, predictions as text, pictures as PNG files.

Nothing here computes a result: plain Python values and NumPy arrays come in. Accuracies are fractions
and are shown in percent.
"""
