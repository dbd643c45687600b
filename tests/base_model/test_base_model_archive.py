from pathlib import Path

import pytest
from base_kit import make_deb, make_tar, make_zip

from base_model.archive import files, order

CONTENT = {f"./top/{name}.txt": name.encode() for name in "abcdef"} | {"./top/skip.bin": b"no"}


@pytest.mark.parametrize(
    ("name", "make"), [("p.whl", make_zip), ("p.deb", make_deb), ("p.tar.gz", make_tar)]
)
def test_every_kind_of_archive_gives_the_matching_files_in_one_order(
    tmp_path: Path, name: str, make
) -> None:
    path = tmp_path / name
    path.write_bytes(make(dict(reversed(CONTENT.items()))))
    found = list(files(path, ("./top/*.txt",)))
    assert dict(found) == {n: d for n, d in CONTENT.items() if n.endswith(".txt")}
    assert [name for name, _ in found] == sorted((n for n, _ in found), key=order)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_names_that_climb_out_of_an_archive_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    path.write_bytes(make_tar({"../../evil.txt": b"x"}))
    assert list(files(path, ("*",))) == [("../../evil.txt", b"x")]
    assert not (tmp_path.parent / "evil.txt").exists()


@pytest.mark.parametrize("data", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 60])
def test_a_debian_package_without_data_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "p.deb"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"Debian|invalid literal"):
        list(files(path, ("*",)))
