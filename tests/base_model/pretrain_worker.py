"""A pretraining in a process of its own, so that a test can kill it: prints each loss, exactly."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from base_kit import tiny_recipe

from base_model.pretrain import Job, pretrain
from base_model.train import StepReport
from fedproto.errors import LocalFault


def main() -> None:
    directory, processes, steps, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    job = Job(
        recipe=tiny_recipe(steps),
        packed=directory / "packed",
        seed=seed,
        compile_=False,
        snapshots=directory / "snapshots",
    )

    def show(report: StepReport) -> None:
        print(report.step, report.loss.hex(), flush=True)
        # The test answers when it has read the line, or kills us instead.
        if len(sys.argv) > 5:
            sys.stdin.readline()

    try:
        model, last = pretrain(job, processes=processes, on_step=show)
    except LocalFault as fault:
        sys.exit(fault.code)
    print("last", last.hex())
    print("weights", digest(model))


def digest(model) -> str:
    from fedproto.ids import sha256_hex

    return sha256_hex(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))


if __name__ == "__main__":
    main()
