"""The frozen backbone: towers, points, rows."""
