"""Preference data: collecting rankings from people, storing them, exchanging them, and judging whether they will do."""

from agents.preference_data.exchange import from_dataset, load_pairs, load_preferences, save_pairs, to_dataset
from agents.preference_data.store import Item, PreferenceStore, load_items

__all__ = [
    "Item",
    "PreferenceStore",
    "from_dataset",
    "load_items",
    "load_pairs",
    "load_preferences",
    "save_pairs",
    "to_dataset",
]
