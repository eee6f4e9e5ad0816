"""How much faster MiniLM encodes and trains in bfloat16 than in fp32 on this machine.

    python tests/benchmarks/precision.py

Prints the ratio of token throughputs, the median over rounds that alternate between the two.
"""

import statistics

import torch

from ubert_training.running.devices import uses_bfloat16
from ubert_training.running.timing import seconds_of
from ubert_training.weights.backbones import load_backbone

REVIEWS, TOKENS, ROUNDS = 32, 64, 7


def main() -> None:
    if not uses_bfloat16("auto", torch.device("cpu")):
        print("this CPU has no bfloat16 arithmetic: training runs in fp32 here")
        return
    torch.manual_seed(0)
    bert = load_backbone("minilm").bert
    token_ids = torch.randint(1000, 20000, (REVIEWS, TOKENS))

    def encode() -> None:
        with torch.inference_mode():
            bert.eval()(input_ids=token_ids)

    def train() -> None:
        bert.train()(input_ids=token_ids).last_hidden_state.square().mean().backward()

    for name, work in (("encoding", encode), ("training step", train)):
        ratios = []
        for _ in range(ROUNDS + 1):
            full = seconds_of(work)
            with torch.autocast("cpu", torch.bfloat16):
                ratios.append(full / seconds_of(work))
        spread = sorted(ratios[1:])  # the first round warms up
        print(f"{name}: bfloat16 is {statistics.median(spread):.1f}× fp32 (from {spread[0]:.1f} to {spread[-1]:.1f})")


if __name__ == "__main__":
    main()
