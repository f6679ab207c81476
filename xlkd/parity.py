# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares an encoder with transformers: `python -m xlkd.parity --model=DIR [--tolerance=1e-4]`.

  --model=DIR          a folder with a Hugging Face model, or the name of a model on the hub
  --tolerance=NUMBER   largest difference of hidden states and logits (default 1e-4); gradients may differ by ten
                       times as much, relative to the largest value of their tensor

Both compute in float32, without dropout, on the same random rows of unequal lengths. Needs PyTorch.
Exit codes: 0 within tolerance, 1 beyond it, 2 bad input.

Examples:
  python -m xlkd.parity --model=OWNER/NAME
  python -m xlkd.parity --model=runs/NAME/stages/01-english/export --tolerance=1e-5
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from xlkd import cli, spec
from xlkd.errors import BUG, DONE, UserError

CLASSES = {
    "span": "AutoModelForQuestionAnswering",
    "classifier": "AutoModelForSequenceClassification",
    "masked_lm": "AutoModelForMaskedLM",
}
ROWS, LENGTH = 3, 24


def main(arguments: list[str]) -> int:
    """Prints the differences; returns the exit code."""
    flags = cli.parse_flags(arguments, ("model", "tolerance"))
    if "model" not in flags:
        raise UserError("no --model given", "command line", "for example --model=runs/NAME/stages/01-english/export")
    tolerance = _parse_positive(flags.get("tolerance", "1e-4"))
    differences = compare(flags["model"])
    limits = {part: tolerance * (10 if part.startswith("gradient") else 1) for part in differences}
    within = {part: difference <= limits[part] for part, difference in differences.items()}  # False for NaN too
    width = max(map(len, differences))
    lines = [f"{'part':{width}}  difference   limit"]
    for part, difference in differences.items():
        lines.append(f"{part:{width}}  {difference:10.2e}   {limits[part]:.0e}{'' if within[part] else '   beyond'}")
    cli.print_lines(lines)
    return DONE if all(within.values()) else BUG


def _parse_positive(text: str) -> float:
    try:
        value = spec.parse_value(float, text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise UserError(f"--tolerance={text} is not a positive number", "command line", "for example 1e-4")
    return value


def compare(name: str) -> dict[str, float]:
    """Returns the largest difference to transformers in each part: every layer, the logits of every head, gradients."""
    torch = _import_torch()
    from xlkd.inputs.weights import locate_model
    from xlkd.models import hf
    from xlkd.models.families import find_form

    path, _ = locate_model(name)
    checkpoint = hf.load(path)
    inputs, form = _draw_inputs(checkpoint.architecture), find_form(checkpoint.architecture)
    our_outputs, our_gradient = _run_xlkd(checkpoint, inputs)
    differences: dict[str, float] = {}
    their_gradient: dict[str, Any] = {}
    for head in _list_heads(checkpoint):  # transformers has one model for each head; gradients are summed over all
        their_outputs, gradient = _run_transformers(torch, path, head, inputs, form.simplify_name)
        for part, value in their_outputs.items():
            difference = _find_largest_difference(our_outputs[part], value, inputs["attention_mask"])
            differences[part] = max(difference, differences.get(part, 0.0))
        for tensor, value in gradient.items():
            their_gradient[tensor] = value + their_gradient.get(tensor, 0.0)
    return differences | _compute_relative_differences(our_gradient, their_gradient, form.layers.partition("{}")[0])


def _list_heads(checkpoint: Any) -> list[str | None]:
    return [part for part in checkpoint.params if part != "encoder"] or [None]


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError("PyTorch is not installed", "parity", "pip install 'xlkd[parity]'") from error
    return torch


def _draw_inputs(architecture: Any) -> dict[str, Any]:
    """Draws rows of unequal lengths."""
    import numpy as np

    rng = np.random.default_rng(0)
    length = min(LENGTH, architecture.max_length)
    mask = (np.arange(length) < np.array([[length], [max(length // 2, 1)], [max(length - 3, 1)]])).astype(np.int32)
    ids = rng.integers(0, architecture.vocab_size - 1, (ROWS, length))
    ids += ids >= architecture.pad_id  # any token but the padding
    inputs = {"input_ids": np.where(mask == 1, ids, architecture.pad_id).astype(np.int32), "attention_mask": mask}
    if architecture.types > 1:
        inputs["token_type_ids"] = (np.arange(length) > length // 3).astype(np.int32) * mask
    return inputs


def _run_xlkd(checkpoint: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns outputs by part, and the gradient of their weighted sum under the names of transformers."""
    import jax
    import jax.numpy as jnp

    from xlkd.models import layout
    from xlkd.models.encoder import Encoder
    from xlkd.models.families import find_form

    architecture, mask = checkpoint.architecture, inputs["attention_mask"]
    encoder = Encoder(architecture, scan=True)

    def loss(params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states = encoder.apply({"params": params["encoder"]}, *inputs.values())
        hidden = {f"hidden {i}": state for i, state in enumerate(states)}
        logits = _compute_logits(architecture, params, states[-1], mask)
        times = len(_list_heads(checkpoint))  # each model of transformers has the hidden states in its sum
        return times * _sum_weighted(jnp, hidden, mask) + _sum_weighted(jnp, logits, mask), hidden | logits

    gradient, parts = jax.jit(jax.grad(loss, has_aux=True))(checkpoint.params)
    tensors = layout.to_tensors(architecture, jax.device_get(gradient))
    return jax.device_get(parts), {find_form(architecture).simplify_name(name): x for name, x in tensors.items()}


def _compute_logits(architecture: Any, params: dict[str, Any], last: Any, mask: Any) -> dict[str, Any]:
    from xlkd.models import heads
    from xlkd.models.families import find_family

    logits = {}
    if "span" in params:
        logits["start"], logits["end"] = heads.SpanHead(architecture).apply({"params": params["span"]}, last)
    if "classifier" in params:
        head = heads.ClassifierHead(architecture, labels=params["classifier"]["output"]["bias"].shape[0])
        pooled = find_family(architecture).pool(architecture, last, mask)
        logits["classes"] = head.apply({"params": params["classifier"]}, pooled)
    if "masked_lm" in params:
        words = params["encoder"]["embeddings"]["words"]
        logits["words"] = heads.MaskedLMHead(architecture).apply({"params": params["masked_lm"]}, last, words)
    return logits


def _run_transformers(
    torch: Any, path: Any, head: str | None, inputs: dict[str, Any], simplify_name: Callable[[str], str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = getattr(transformers, CLASSES.get(head or "", "AutoModel"))
    options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
    if head == "span":
        options["num_labels"] = 2  # otherwise transformers takes the number of the classifier in the same folder
    model = kind.from_pretrained(path, **options).eval()
    tensors = {name: torch.tensor(value).long() for name, value in inputs.items()}
    outputs = model(**tensors, output_hidden_states=True)
    parts = {f"hidden {i}": state for i, state in enumerate(outputs.hidden_states)}
    if head == "span":
        parts |= {"start": outputs.start_logits, "end": outputs.end_logits}
    elif head is not None:
        parts |= {"classes" if head == "classifier" else "words": outputs.logits}
    _sum_weighted(torch, parts, tensors["attention_mask"]).backward()
    parameters = model.named_parameters(remove_duplicate=False)
    gradient = {simplify_name(name): value.grad.numpy() for name, value in parameters if value.grad is not None}
    return {name: value.detach().numpy() for name, value in parts.items()}, gradient


def _sum_weighted(library: Any, parts: dict[str, Any], mask: Any) -> Any:
    """Returns a sum in which each value at a valid position has its own weight; `library` is jax.numpy or torch."""
    total = 0.0
    for value in parts.values():
        weights = library.cos(library.arange(math.prod(value.shape), dtype=library.float32)).reshape(value.shape)
        if value.shape[:2] == mask.shape:
            weights = weights * mask.reshape(*mask.shape, *(1,) * (value.ndim - 2))
        total = total + (value * weights).sum() / math.prod(value.shape)
    return total


def _find_largest_difference(ours: Any, theirs: Any, mask: Any) -> float:
    import numpy as np

    difference = np.abs(ours - theirs)
    return float((difference[mask == 1] if difference.shape[:2] == mask.shape else difference).max())


def _compute_relative_differences(ours: dict[str, Any], theirs: dict[str, Any], layer_prefix: str) -> dict[str, float]:
    """Returns for each place the largest difference of a tensor, relative to its largest gradient.

    Where there is almost no gradient, as in the biases of keys, it is relative to a thousandth of the model's largest.
    """
    import numpy as np

    largest = max(np.abs(value).max() for value in theirs.values())
    places: dict[str, list[float]] = {"embeddings": [], "layers": [], "heads": []}
    for name, value in ours.items():
        other = theirs.get(name, np.zeros_like(value))
        is_embedding, is_layer = name.startswith("embeddings."), name.startswith(layer_prefix)
        place = "embeddings" if is_embedding else "layers" if is_layer else "heads"
        difference = np.abs(value - other).max() / max(np.abs(other).max(), 1e-3 * largest)
        places[place].append(difference)
    return {f"gradient of {place}": float(np.max(values)) for place, values in places.items() if values}


if __name__ == "__main__":
    sys.exit(cli.run(main))
