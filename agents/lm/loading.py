"""Loading Hugging Face models, with errors that say what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError


def load_model(name: str | Path, kind: str = "AutoModelForCausalLM") -> Any:
    """A model with float32 weights, from a hub name or a local folder. A folder with an adapter gives the model that it
    was made for, with the adapter on it, ready to be trained.

    Args:
        kind: the auto class of transformers that reads it.

    Raises:
        ImportError: transformers (or, for an adapter, peft) is not installed.
        ValueError: there is no such model, no network to fetch it, its weights are missing, cut short or not in
            safetensors, or it is of another kind.
    """
    transformers = import_transformers()
    folder = Path(name)
    options: dict[str, Any] = {"dtype": torch.float32}
    try:
        if (folder / "adapter_config.json").is_file():
            return _load_adapter(name, options)
        auto_class = getattr(transformers, kind)
        model, report = auto_class.from_pretrained(str(name), use_safetensors=True, output_loading_info=True, **options)
    except SafetensorError as error:
        raise ValueError(f"The weights of {str(name)!r} are damaged or cut short: {error}.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"Cannot load the model {str(name)!r}: {_reason(folder, error)}") from error
    for what in ("missing_keys", "mismatched_keys"):
        names = sorted(map(str, report[what]))
        if names:
            raise ValueError(
                f"{str(name)!r} is no {kind.removeprefix('AutoModelFor')} checkpoint of a {type(model).__name__}: "
                f"{what.removesuffix('_keys')} weights, {', '.join(names[:3])}{' …' if len(names) > 3 else ''}."
            )
    return model


def load_critic(name: str | Path) -> Any:
    """A model to be a critic: a sequence classifier (a reward model) with its head, or any language model.

    Raises:
        ImportError, ValueError: as for :func:`load_model`.
    """
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(str(name))
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot load the critic {str(name)!r}: {_reason(Path(name), error)}") from error
    classifier = any(each.endswith("ForSequenceClassification") for each in config.architectures or [])
    return load_model(name, "AutoModelForSequenceClassification" if classifier else "AutoModelForCausalLM")


def import_transformers() -> Any:
    """The transformers package.

    Raises:
        ImportError: it is not installed; says how.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "Language models need the transformers package: install the extra, e.g. pip install 'textenvs[lm]'."
        ) from error
    return transformers


def _load_adapter(name: str | Path, options: dict[str, Any]) -> Any:
    try:
        from peft import AutoPeftModelForCausalLM
    except ImportError as error:
        raise ImportError(
            f"{name} is an adapter, which needs the peft package: install the extra, e.g. pip install 'textenvs[peft]'."
        ) from error
    return AutoPeftModelForCausalLM.from_pretrained(str(name), is_trainable=True, **options)


def _reason(folder: Path, error: Exception) -> str:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    if not folder.is_dir():
        return f"it is no local folder, and the hub has none or cannot be reached. ({first_line})"
    if not (folder / "config.json").is_file():
        return f"the folder has no config.json. ({first_line})"
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return (
            f"its weights are a pickle, which can run code when read: save them as safetensors "
            f"(model.save_pretrained(folder) in a recent transformers). ({first_line})"
        )
    if not any(folder.glob("*.safetensors")):
        return f"the folder has no weights (*.safetensors). ({first_line})"
    return first_line
