"""Wrappers that Gymnasium lacks for text, and adapters to other libraries; ``wrappers.vector`` has vector versions."""

from textenvs.wrappers import vector
from textenvs.wrappers.adapters import as_sb3_vec_env
from textenvs.wrappers.records import BestText
from textenvs.wrappers.scalar import BestTexts, EpisodeLog
from textenvs.wrappers.text import TextObservation, TextSpace

__all__ = ["BestText", "BestTexts", "EpisodeLog", "TextObservation", "TextSpace", "as_sb3_vec_env", "vector"]
