"""Pretrained models as judges: classifiers and fluency. PyTorch and transformers are imported when one is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.errors import unknown_name
from textenvs.rewards.inputs import READABLE, choice, load_library, readable_texts, version_of, whole_number
from textenvs.rewards.registry import register_reward
from textenvs.tokenizers import tokenizer_class

_EXTRA = "lm"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "tekken.json")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_NO_LIMIT = 10**6
"""Tokenizers that know no limit state a huge one."""


class Pretrained:
    """A pretrained model with its own tokenizer: what the rewards that are models share.

    Raises:
        ImportError: transformers or PyTorch is missing.
        FileNotFoundError: the folder, its weights or its tokenizer are missing.
        OSError: the model hub cannot be reached, or has no such model.
        ValueError: weights that are not safetensors, an untrained part, a tokenizer that does not fit, or a device that
            is not there.
    """

    name: str

    def __init__(
        self,
        auto_class: str,
        model: str | Path,
        *,
        batch_size: int,
        max_length: int | None,
        device: str | None,
        dtype: str,
    ) -> None:
        torch = load_library("torch", reward=self.name, extra=_EXTRA)
        transformers = load_library("transformers", reward=self.name, extra=_EXTRA)
        self.batch_size = whole_number(self.name, "batch_size", batch_size)
        self.device = self._checked_device(torch, device)
        choice(self.name, "dtype", dtype, ("float32", "bfloat16", "float16"))
        is_folder = self._is_folder(model)
        source = str(Path(model).expanduser()) if is_folder else str(model)
        try:
            with torch.random.fork_rng(devices=[]):  # weights that the checkpoint lacks would be drawn
                loaded, report = getattr(transformers, auto_class).from_pretrained(
                    source, use_safetensors=True, trust_remote_code=False, output_loading_info=True
                )
            self.tokenizer = tokenizer_class(source).from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # also what safetensors, tokenizers and the model's own code raise
            kind = OSError if isinstance(error, OSError) else ValueError
            where = "" if is_folder else " (no folder here, so a name on the model hub)"
            raise kind(f"{self.name!r} cannot load {str(model)!r}{where}: {error}") from error
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise ValueError(
                f"{self.name!r}: the weights of {str(model)!r} lack {missing}, so it was not trained for this. "
                f"It is a {' or '.join(loaded.config.architectures or ['model of another kind'])}."
            )
        self._check_tokenizer(loaded, str(model))
        self.model = loaded.to(device=self.device, dtype=getattr(torch, dtype)).eval()
        self.max_length = self._checked_length(max_length)
        self.weights = _state_of(Path(source)) if is_folder else f"{model} {loaded.config._commit_hash}"

    def _is_folder(self, model: str | Path) -> bool:
        """Whether ``model`` is a folder (checked here) rather than a name on the hub."""
        folder = Path(model).expanduser()
        if not folder.is_dir():
            if isinstance(model, str) and _HUB_NAME.fullmatch(model) and not folder.exists():
                return False
            raise FileNotFoundError(f"{self.name!r}: there is no folder {str(model)!r}, and it is no name on the hub.")
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{self.name!r}: the folder {str(model)!r} holds no model: no config.json.")
        if not any(folder.glob("*.safetensors")):
            pickled = sorted(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt")])
            if pickled:
                raise ValueError(
                    f"{self.name!r}: the weights in {str(model)!r} are pickled ({pickled[0]}), and loading a pickle "
                    f"runs code. Where you trust them, load them and write safetensors: model.save_pretrained(folder)."
                )
            raise FileNotFoundError(f"{self.name!r}: the folder {str(model)!r} holds no weights: no *.safetensors.")
        if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise FileNotFoundError(
                f"{self.name!r}: the folder {str(model)!r} holds no tokenizer. Write it beside the model: "
                f"tokenizer.save_pretrained(folder)."
            )
        return True

    def _checked_device(self, torch: Any, device: str | None) -> Any:
        if device is None:
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            checked = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"{self.name!r}: device={device!r} is none: {error}") from None
        if checked.type == "cuda" and (checked.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"{self.name!r}: device={device!r}, but PyTorch sees {torch.cuda.device_count()} GPUs.")
        return checked

    def _check_tokenizer(self, model: Any, shown: str) -> None:
        if set(self.tokenizer.get_vocab()) <= set(self.tokenizer.all_special_tokens):
            # transformers makes an empty tokenizer where there are no files for one.
            raise FileNotFoundError(f"{self.name!r}: {shown!r} has no tokenizer: no token but the special ones.")
        rows = model.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > rows:
            raise ValueError(
                f"{self.name!r}: the tokenizer of {shown!r} has {len(self.tokenizer)} tokens, its model {rows}: "
                f"they do not belong together."
            )

    def _checked_length(self, max_length: int | None) -> int | None:
        known = [self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", None)]
        limits = [limit for limit in known if limit is not None and limit < _NO_LIMIT]
        limit = min(limits, default=None)
        if max_length is None:
            return limit
        checked = whole_number(self.name, "max_length", max_length, minimum=2)
        if limit is not None and checked > limit:
            raise ValueError(f"{self.name!r}: max_length={checked}, but the model takes {limit} tokens at most.")
        return checked

    def _batches(self, rows: list[list[int]]) -> Iterator[np.ndarray]:
        """Indices of rows in batches of about equal length, so that little is padded."""
        order = np.argsort([len(row) for row in rows], kind="stable")
        for start in range(0, len(rows), self.batch_size):
            yield order[start : start + self.batch_size]

    def _padded(self, rows: list[list[int]], value: int) -> Any:
        """Rows as an int64 tensor [B, longest] on the model's device, padded on the right."""
        import torch

        padded = torch.full((len(rows), max(map(len, rows))), value)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = torch.tensor(row)
        return padded.to(self.device)


def _state_of(folder: Path) -> str:
    """The folder and when its weights were written: another model in the same place is another judge."""
    files = sorted(folder.glob("*.safetensors"))
    return f"{folder.resolve()} {max(file.stat().st_mtime_ns for file in files)}"


@register_reward("hf_classifier")
class HuggingFaceClassifier(Pretrained):
    """One output of a Hugging Face sequence classifier or reward model.

    Score: the probability of one label (softmax; sigmoid where the labels do not exclude each other), or its logit.
    Range: [0, 1] for a probability, (−∞, ∞) for a logit. The text is decoded and tokenised by the classifier's own
    tokenizer; one that is too long loses its end, or with ``of="text"`` its beginning. Weights must be safetensors;
    code from the hub is never run.

    Args:
        model: a folder or a name on the hub; ``"hf_classifier:FOLDER"`` names it too.
        label: name or index of the output; not needed where there is only one.
        output: ``"probability"`` or ``"logit"``. Default: the probability, but the logit of a regression or of a single
            output.
        of: what is read: ``"completion"``, ``"text"`` (prompt and completion as one text) or ``"pair"`` (prompt and
            completion as the tokenizer's two segments).
        batch_size: texts in one forward pass.
        max_length: tokens, special ones included; default what the model takes.
        device: as in PyTorch; default a GPU if there is one.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "model"

    def __init__(
        self,
        model: str | Path,
        *,
        label: str | int | None = None,
        output: str | None = None,
        of: str = "completion",
        batch_size: int = 32,
        max_length: int | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.of = choice(self.name, "of", of, (*READABLE, "pair"))
        super().__init__(
            "AutoModelForSequenceClassification",
            model,
            batch_size=batch_size,
            max_length=max_length,
            device=device,
            dtype=dtype,
        )
        config = self.model.config
        self.label = self._label_index(label, {int(i): str(name) for i, name in config.id2label.items()})
        regression = config.num_labels == 1 or config.problem_type == "regression"
        default = "logit" if regression else "probability"
        self.output = choice(self.name, "output", output or default, ("probability", "logit"))
        if self.output == "probability" and config.problem_type == "regression":
            raise ValueError(f"{self.name!r}: {str(model)!r} is a regression, it has no probabilities: output='logit'.")
        self._exclusive = config.num_labels > 1 and config.problem_type != "multi_label_classification"
        if self.output == "logit":
            self.low, self.high = -np.inf, np.inf
        if self.tokenizer.pad_token_id is None:
            if self.tokenizer.eos_token_id is None:
                raise ValueError(f"{self.name!r}: the tokenizer of {str(model)!r} has neither padding nor EOS token.")
            self.tokenizer.pad_token = self.tokenizer.eos_token
        config.pad_token_id = self.tokenizer.pad_token_id  # decoders find a text's last token by it
        if of == "text":
            self.tokenizer.truncation_side = "left"
        self.version = version_of(
            model=self.weights, label=self.label, output=self.output, of=of, max_length=self.max_length, dtype=dtype
        )

    def _label_index(self, label: str | int | None, labels: dict[int, str]) -> int:
        if label is None:
            if len(labels) > 1:
                raise ValueError(f"{self.name!r}: say which label= is the score: {', '.join(labels.values())}.")
            return 0
        if isinstance(label, int) and not isinstance(label, bool):
            if label in labels:
                return label
            raise ValueError(f"{self.name!r}: label={label} is not in 0 … {len(labels) - 1}.")
        named = [i for i, name in labels.items() if name == label]
        if not named:
            raise ValueError(f"{self.name!r}: {unknown_name('label', label, labels.values())}")
        return named[0]

    def score(self, episodes: Episodes) -> np.ndarray:
        import torch

        if not len(episodes):
            return np.zeros(0, dtype=np.float32)
        if self.of == "pair":
            texts, pairs = episodes.prompts, episodes.completions
        else:
            texts, pairs = readable_texts(episodes, self.of), None
        encoded = self.tokenizer(
            list(texts), text_pair=pairs, truncation=self.max_length is not None, max_length=self.max_length
        )
        # A tokenizer without special tokens gives an empty text none at all: it is read as one token of padding.
        rows = [row or [self.tokenizer.pad_token_id] for row in encoded["input_ids"]]
        segments = encoded.get("token_type_ids")
        logits = torch.empty(len(rows), self.model.config.num_labels)
        with torch.inference_mode():
            for batch in self._batches(rows):
                chosen = [rows[i] for i in batch]
                inputs = {
                    "input_ids": self._padded(chosen, self.tokenizer.pad_token_id),
                    "attention_mask": self._padded([[1] * len(row) for row in chosen], 0),
                }
                if segments is not None:
                    inputs["token_type_ids"] = self._padded([segments[i] or [0] for i in batch], 0)
                logits[torch.from_numpy(batch)] = self.model(**inputs).logits.float().cpu()
        if self.output == "logit":
            return logits[:, self.label].numpy()
        probabilities = logits.softmax(dim=-1) if self._exclusive else logits.sigmoid()
        return probabilities[:, self.label].numpy()


@register_reward("hf_perplexity")
class HuggingFacePerplexity(Pretrained):
    """Fluency: mean log-probability of the completion's tokens under a causal language model.

    Score: (1/n) Σ log p(token | prompt and the tokens before it) in nats, over the model's own tokens of the
    completion; perplexity is exp(−score). Range: (−∞, 0], higher is more fluent. The prompt is context, not scored; a
    text that is too long loses its beginning. A completion without tokens scores −log V, as if guessed among the
    model's V tokens: writing nothing does not pay. Weights must be safetensors; code from the hub is never run.

    Args:
        model: a folder or a name on the hub; ``"hf_perplexity:FOLDER"`` names it too.
        batch_size: texts in one forward pass.
        max_length: tokens of prompt and completion; default what the model takes.
        device: as in PyTorch; default a GPU if there is one.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    """

    low, high = -np.inf, 0.0
    deterministic, version, cost = True, "1", "model"

    def __init__(
        self,
        model: str | Path,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__(
            "AutoModelForCausalLM", model, batch_size=batch_size, max_length=max_length, device=device, dtype=dtype
        )
        if not self.tokenizer.is_fast:
            raise ValueError(f"{self.name!r}: the tokenizer of {str(model)!r} does not say where its tokens begin.")
        self._check_causal(str(model))
        self.version = version_of(model=self.weights, max_length=self.max_length, dtype=dtype)

    def _check_causal(self, shown: str) -> None:
        """A model that sees the next token (an encoder loaded as a decoder) would find every text fluent."""
        import torch

        with torch.inference_mode():
            first, second = (self.model(torch.tensor([[0, i]], device=self.device)).logits[0, 0] for i in (0, 1))
        if not torch.allclose(first, second, rtol=1e-2, atol=1e-3):
            raise ValueError(f"{self.name!r}: {shown!r} is no causal language model: it looks at the next token.")

    def score(self, episodes: Episodes) -> np.ndarray:
        import torch
        from torch.nn.functional import cross_entropy

        if not len(episodes):
            return np.zeros(0, dtype=np.float32)
        texts = episodes.texts
        encoded = self.tokenizer(list(texts), return_offsets_mapping=True)
        rows, scored = [], []
        for i, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            begin = len(texts[i]) - len(episodes.completions[i])
            row, counts = self._row(ids, [end > begin for _, end in offsets])
            rows.append(row)
            scored.append(counts)
        means = torch.full((len(rows),), -float(np.log(self.model.get_input_embeddings().num_embeddings)))
        with torch.inference_mode():
            for batch in self._batches(rows):
                ids = self._padded([rows[i] for i in batch], 0)
                mask = self._padded([[1] * len(rows[i]) for i in batch], 0)
                counts = self._padded([scored[i] for i in batch], 0)[:, 1:].bool()
                logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
                logprobs = -cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view_as(counts)
                number = counts.sum(dim=1)
                mean = torch.where(counts, logprobs, 0.0).sum(dim=1) / number.clamp(min=1)
                some = (number > 0).cpu()
                means[torch.from_numpy(batch)[some]] = mean.cpu()[some]
        return means.numpy()

    def _row(self, ids: list[int], counts: list[bool]) -> tuple[list[int], list[int]]:
        """Ids as the model reads them, and 1 for each that is scored."""
        begin = self.tokenizer.bos_token_id
        if begin is None:
            begin = self.tokenizer.eos_token_id
        if begin is not None and ids[:1] != [begin]:
            ids, counts = [begin, *ids], [False, *counts]
        if not ids:  # neither text nor a token to begin with
            ids, counts = [0], [False]
        if self.max_length is not None:
            ids, counts = ids[-self.max_length :], counts[-self.max_length :]
        return ids, [int(count) for count in counts]
