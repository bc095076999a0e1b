"""Estimators of scikit-learn: methods on images, methods on features, and CLIP's features of images.

Inside this room `import sklearn` means scikit-learn: imports are absolute.
"""

from clipadapt.sklearn.embedder import CLIPEmbedder
from clipadapt.sklearn.feature_estimator import CLIPFeatureClassifier
from clipadapt.sklearn.image_estimator import CLIPClassifier

__all__ = ["CLIPClassifier", "CLIPEmbedder", "CLIPFeatureClassifier"]
