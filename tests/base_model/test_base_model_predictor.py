import numpy as np
import torch
from base_kit import TINY

from base_model.model import build
from base_model.predictor import predictor
from base_model.tokenizer import BOS


def test_a_prompt_is_read_as_a_document_of_its_own() -> None:
    model = build(TINY, seed=1)
    prompts = np.array([[5, 6, 7], [8, 9, 10]])
    begun = torch.tensor([[BOS, 5, 6, 7], [BOS, 8, 9, 10]])
    with torch.inference_mode():
        wanted = model.eval()(begun).logits[:, -1].numpy()
    assert np.allclose(predictor(model)(prompts), wanted, atol=1e-5)
