"""Reward models that were trained on preferences, from the folder that ``agents.lm.RewardModel`` saves.

The folder is a sequence classifier with one output as transformers saves it, its tokenizer, and ``reward_model.json``,
which says what the output means: format, version, and the mean and standard deviation of the output on reference texts.
PyTorch and transformers are imported when one is loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.huggingface import Pretrained
from textenvs.rewards.registry import register_reward
from textenvs.spec import TextSpec
from textenvs.vocab import Vocab

FORMAT = "textenvs-reward-model"
VERSION = 1
HEADER = "reward_model.json"


@dataclass(frozen=True)
class Normalisation:
    """Statistics of a reward model's output on reference texts: its score is (output − mean) / std.

    They stand beside the weights, not in them: the heads of GPT-2, Llama and others have no bias that could hold the
    mean.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"mean must be finite and std positive, got mean={self.mean} and std={self.std}.")


def write_header(folder: str | Path, normalisation: Normalisation) -> None:
    """Write ``reward_model.json`` into a folder."""
    header = {"format": FORMAT, "version": VERSION, "mean": normalisation.mean, "std": normalisation.std}
    (Path(folder) / HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")


def read_header(folder: str | Path) -> Normalisation:
    """The statistics in a folder's ``reward_model.json``.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no reward model.
        ValueError: the file is damaged, or of another format or version.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r} with a reward model.")
    path = folder / HEADER
    if not path.is_file():
        raise FileNotFoundError(
            f"The folder {str(folder)!r} holds no {HEADER}, so it is no reward model that RewardModel.save_pretrained "
            f"wrote. Any other classifier is a reward too: 'hf_classifier:{folder}'."
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header.get("format") != FORMAT:
            raise ValueError(f"it has no format {FORMAT!r}")
        version = header.get("version")
        if version == VERSION:
            return Normalisation(float(header["mean"]), float(header["std"]))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged or no header of a reward model: {reason}.") from error
    raise ValueError(f"{path} is of version {version!r}; this code reads version {VERSION}.")


def token_rows(episodes: Episodes) -> list[list[int]]:
    """What a reward model reads of each text: the ids of prompt and completion, EOS included, without padding."""
    width = episodes.prompt_ids.shape[1]
    begins = width - (episodes.prompt_ids != episodes.pad_id).sum(axis=1)
    both = np.concatenate([episodes.prompt_ids, episodes.completion_ids], axis=1).tolist()
    return [
        row[begin : width + length]
        for row, begin, length in zip(both, begins.tolist(), episodes.lengths.tolist(), strict=True)
    ]


def outputs(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """The head's output at the last token of each text: a float32 tensor [B] on the model's device.

    Args:
        model: a sequence classifier with one output, whose head is ``model.score``, on a causal language model.
        rows: B rows of ids, none empty. They are padded on the right, where nothing that counts looks.
    """
    import torch

    lengths = [len(row) for row in rows]
    padded = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    device = model.score.weight.device
    hidden = model.base_model(input_ids=padded.to(device), use_cache=False).last_hidden_state
    last = torch.tensor(lengths, device=device) - 1
    return model.score(hidden[torch.arange(len(rows), device=device), last])[:, 0].float()


@register_reward("learned")
class LearnedReward(Pretrained):
    """A reward model trained on preferences (``agents.lm.RewardModel``), from its folder.

    Score: its output at the text's last token, shifted and scaled to mean 0 and variance 1 on the reference texts that
    it was normalised with. Range: (−∞, ∞). It reads the ids of prompt and completion as they were written, EOS
    included, so the environment must be made with its tokenizer. ``version`` is a checksum of its files.

    Args:
        model: the folder; ``"learned:FOLDER"`` names it too.
        batch_size: texts in one forward pass.
        device: as in PyTorch; default a GPU if there is one.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Raises:
        FileNotFoundError: the folder, or something in it, is missing.
        ValueError: something in it is damaged, pickled, or of another format or version.
    """

    low, high = -np.inf, np.inf
    deterministic, cost = True, "model"

    def __init__(
        self, model: str | Path, *, batch_size: int = 64, device: str | None = None, dtype: str = "float32"
    ) -> None:
        self.folder = Path(model).expanduser()
        self.normalisation = read_header(self.folder)
        super().__init__(
            "AutoModelForSequenceClassification",
            self.folder,
            batch_size=batch_size,
            max_length=None,
            device=device,
            dtype=dtype,
        )
        head = getattr(self.model, "score", None)
        if getattr(head, "out_features", None) != 1:
            raise ValueError(
                f"{self.name!r}: {str(self.folder)!r} is a {type(self.model).__name__} with "
                f"{self.model.config.num_labels} outputs; a reward model has a head 'score' with one."
            )
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.tokens = tuple(self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer)))))
        self.version = f"{VERSION}:{_checksum(self.folder)}"
        self._known: Vocab | None = None

    def check_spec(self, spec: TextSpec) -> None:
        """Check that it can judge every text of an environment.

        Raises:
            ValueError: another tokenizer, or a context that is too short.
        """
        self._check_vocab(spec.vocab)
        if self.context is not None and spec.row_length > self.context:
            raise ValueError(
                f"{self.name!r}: the reward model in {str(self.folder)!r} reads at most {self.context} tokens; prompts "
                f"of {spec.prompt_length} and texts of {spec.max_new_tokens} tokens can have {spec.row_length}. Make "
                f"prompt_length or max_new_tokens smaller."
            )

    def score(self, episodes: Episodes) -> np.ndarray:
        import torch

        if episodes.vocab is not self._known:
            self._check_vocab(episodes.vocab)
            self._known = episodes.vocab
        # An empty text begins with nothing; it is read as its end alone.
        rows = [row or [self.tokenizer.eos_token_id or 0] for row in token_rows(episodes)]
        if self.context is not None and max(map(len, rows), default=0) > self.context:
            longest = max(map(len, rows))
            raise ValueError(f"a text has {longest} tokens; the reward model reads at most {self.context}")
        scores = np.zeros(len(rows), dtype=np.float32)
        with torch.inference_mode():
            for batch in self._batches(rows):
                scores[batch] = outputs(self.model, [rows[i] for i in batch]).cpu().numpy()
        return (scores - np.float32(self.normalisation.mean)) / np.float32(self.normalisation.std)

    def _check_vocab(self, vocab: Vocab) -> None:
        theirs = vocab.tokens
        if theirs == self.tokens[: len(theirs)]:
            return
        pairs = zip(theirs, self.tokens, strict=False)
        first = next((i for i, (one, two) in enumerate(pairs) if one != two), None)
        where = "" if first is None else f", and {first} means {theirs[first]!r} there but {self.tokens[first]!r} here"
        raise ValueError(
            f"{self.name!r}: the reward model in {str(self.folder)!r} was trained with another tokenizer than that of "
            f"the environment: {len(theirs)} tokens there, {len(self.tokens)} here{where}. Make the environment with "
            f"the reward model's tokenizer, or train a reward model with the environment's."
        )


def _checksum(folder: Path) -> str:
    """Of everything that the scores depend on: weights, sizes and statistics."""
    digest = hashlib.sha256()
    for path in [folder / "config.json", folder / HEADER, *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
