"""A release in llama.cpp, beside torch: `python benchmarks/llama_cpp.py RELEASE --source DIR --build DIR`.

Runs llama.cpp's own converter from its source tree, then compares greedy continuations, word for word,
and the model's file. The converter knows tokenizers by a digest of what they make of one text, and none
that was trained here; it is told which of its pre-tokenisers ours is. Needs llama.cpp and nothing else.
"""

import argparse
import runpy
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

PROMPTS = (
    "The function returns",
    "Raises an error if the value",
    "これは、",
    "ファイルを開くには",
    "1234 + 5678 =",
    "class Table(Base):\n    id =",
    "  two  spaces\tand a tab",
    "名前 (name) を 2026年11月28日 に",
)
# Single digits, then GPT-2's pattern: what `base_model.tokenizer` trains.
PRE_TOKENIZER = "smollm"


def convert(source: Path, release: Path, out: Path) -> None:
    """Run the stock converter, in this process, with the name of our pre-tokeniser."""
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    from conversion import base  # type: ignore[import-not-found]

    base.TextModel.get_vocab_base_pre = lambda *_: PRE_TOKENIZER
    sys.argv = ["convert_hf_to_gguf.py", str(release), "--outtype", "f32", "--outfile", str(out)]
    runpy.run_path(str(source / "convert_hf_to_gguf.py"), run_name="__main__")


def by_torch(model: PreTrainedModel, words: Tokenizer, prompt: str, tokens: int) -> str:
    """Continue a prompt greedily."""
    ids = torch.tensor([[0, *words.encode(prompt).ids]])
    found = model.generate(ids, do_sample=False, max_new_tokens=tokens, pad_token_id=2)
    return str(words.decode(found[0, ids.shape[1] :].tolist()))


def by_llama(build: Path, gguf: Path, prompt: str, tokens: int) -> str:
    """The same by llama.cpp."""
    command = [
        str(build / "bin" / "llama-completion"),
        *("-m", str(gguf), "-p", prompt, "-n", str(tokens), "--temp", "0", "--threads", "1"),
        # Every document began with <bos> in training.
        *("--override-kv", "tokenizer.ggml.add_bos_token=bool:true"),
        # Its cache of keys and values is float16 by default: near ties then end another way.
        *("--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"),
        *("-no-cnv", "--no-display-prompt", "--no-warmup", "--simple-io"),
    ]
    # Its log writer may lose the end of what it writes when it exits: the longest of some runs is whole.
    runs = [
        subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
        for _ in range(5)
    ]
    text = max(runs, key=len).decode(errors="replace")
    return text.removesuffix("\n\n").removesuffix(" [end of text]")


def main() -> int:
    """Print each continuation of both, and how many are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="llama.cpp's source tree")
    parser.add_argument("--build", type=Path, required=True, help="where it was built")
    parser.add_argument("--out", type=Path, default=Path("model.gguf"))
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    try:
        convert(options.source, options.release, options.out)
    except SystemExit as done:
        if done.code:
            raise
    words = Tokenizer.from_file(str(options.release / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(options.release, dtype=torch.float32)
    equal = 0
    for prompt in PROMPTS:
        ours = by_torch(model, words, prompt, options.tokens)
        theirs = by_llama(options.build, options.out, prompt, options.tokens)
        same = theirs == ours
        equal += same
        print(f"{'=' if same else '!'} {prompt!r}\n  torch     {ours!r}\n  llama.cpp {theirs!r}")
    print(f"{equal} of {len(PROMPTS)} greedy continuations are equal")
    return 0 if equal == len(PROMPTS) else 1


if __name__ == "__main__":
    sys.exit(main())
