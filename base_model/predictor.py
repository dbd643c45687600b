"""A causal language model as a forecaster of series: from tokens to the logits of the next one.

Decides nothing: it puts the mark that begins a document before the tokens, as in training.
"""

from typing import Any

import numpy as np
import torch

from base_model.forecast import Predict
from base_model.series import Levels
from base_model.tokenizer import BOS


def predictor(model: Any) -> Predict:
    """Return the model as `forecast.compare` asks for it; the model is left in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device

    def predict(prompts: Levels) -> "np.ndarray[Any, np.dtype[np.floating[Any]]]":
        begun = np.concatenate([np.full((len(prompts), 1), BOS), prompts], axis=1)
        with torch.inference_mode():
            hidden = model.model(input_ids=torch.from_numpy(begun).to(device)).last_hidden_state
            logits = model.lm_head(hidden[:, -1]).float().cpu()
        return np.asarray(logits.numpy())

    return predict
