"""A small corpus in Japanese, with near-duplicates and car signals, as `renmei model data` reads it."""

from pathlib import Path

from base_kit import make_lock, make_source, make_zip

from base_model.dataset import Options
from base_model.lockfile import Lock


def message(number: int) -> str:
    return (
        f"BO_ {number} ENGINE: 8 PCM\n"
        ' SG_ SPEED : 7|16@0+ (0.01,0) [0|250] "kph" EON\n'
        ' SG_ ANGLE : 23|16@0- (0.1,0) [-500|500] "deg" EON\n'
    )


def prose(number: int) -> str:
    words = "車速 制御 信号 測定 記録 装置 通信 端末 試験 結果 値 単位".split()
    picked = [words[(number * 7 + n * n * (number + 3)) % 12] + f"{number * n}" for n in range(40)]
    return "。".join(picked) + "です。"


DBC = {
    f"dbc/{maker}_x.dbc": message(n).encode()
    for n, maker in enumerate(
        ["toyota", "gm", "ford", "honda_civic", "vw", "acura_ilx", "hyundai", "mazda"]
    )
}
TEXTS = {f"t/{n}.txt": prose(n).encode() for n in range(60)}
COPIES = {f"t/copy{n}.txt": prose(n).replace("です。", "だ。").encode() for n in range(1, 6)}
OPTIONS = Options(domains=("base", "common"), vocabulary=400, bins=32)


def made_lock(root: Path) -> Lock:
    sources = []
    for name, domain, reader, files in (
        ("prose", "base", "numbering", TEXTS | COPIES),
        ("more", "common", "numbering", {f"m/{n}.txt": prose(n).encode() for n in range(80, 120)}),
        ("opendbc", "honda", "dbc", DBC),
    ):
        data = make_zip(files)
        filename = f"{name}-1.0-py3-none-any.whl"
        (root / filename).write_bytes(data)
        sources.append(
            make_source(
                data, name=name, filename=filename, domain=domain, reader=reader, globs=("*",)
            )
        )
    return make_lock(*sources)
