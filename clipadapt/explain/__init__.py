"""What an adapted CLIP looks at and what it has learned: attention rollout, nearest words, class weights in a plane."""

from clipadapt.explain.class_weights import before_and_after, in_plane
from clipadapt.explain.nearest_words import NearWord, nearest_words
from clipadapt.explain.rollout import attention_rollout

__all__ = ["NearWord", "attention_rollout", "before_and_after", "in_plane", "nearest_words"]
