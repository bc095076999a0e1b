"""Old names of settings that this release renamed; the error for an old name gives the new one."""

RENAMED_KEYS = {
    "data.views": "task.views",
    "data.skip_broken": "task.skip_broken",
    "data.augment": "task.augment",
    "data.resize": "task.resize",
    "engine.accumulate": "engine.gradient_accumulation_steps",
    "engine.recompute": "engine.activation_checkpointing",
    "method.gradient_rule.reported": "method.gradient_rule.primary_loss",
}
"""New dotted keys by old ones."""

RENAMED_OPTIONS = {
    "adaptation": {
        "padding": "pixel_frame",
        "prototypes": "learned_class_weights",
        "blended_probe": "text_blended_probe",
        "coupled_tokens": "coupled_prompts",
        "low_rank": "lora",
    },
}
"""For each group, the new names of its files by old ones."""


def new_key(key: str) -> str | None:
    """Return the advice on a key that was renamed; None for any other."""
    return f"it is called {RENAMED_KEYS[key]} now" if key in RENAMED_KEYS else None


def new_option(group: str, name: str) -> str | None:
    """Return the advice on a file of a group that was renamed; None for any other."""
    found = RENAMED_OPTIONS.get(group, {}).get(name)
    return None if found is None else f"it is called '{found}' now"
