"""The shape of the tree: contracts that can fail, fresh stubs, owned names, banned calls."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("audit", "base_model", "federation", "member_node", "renmei", "proto/fedproto")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {c["id"]: c for c in PYPROJECT["tool"]["importlinter"]["contracts"]}
MAX_LINES = 400
# A test file is a list of claims with its tables; it is read one claim at a time.
MAX_TEST_LINES = 700

# Contract, the module that breaks it, and the import that does.
BREAKS = [
    ("layers", "federation/spy.py", "import member_node.cli_probe"),
    ("layers", "member_node/spy.py", "import federation"),
    ("layers", "audit/spy.py", "import renmei.cli"),
    ("layers", "base_model/spy.py", "import audit.cli"),
    ("layers", "proto/fedproto/spy.py", "import audit.cli"),
    ("no-torch", "federation/spy.py", "import torch"),
    ("no-torch", "audit/spy.py", "import transformers"),
    ("no-torch", "proto/fedproto/spy.py", "from peft import LoraConfig"),
    ("no-torch", "federation/spy.py", "import base_model.cli_probe"),
    ("flwr-in-shells", "member_node/spy.py", "from flwr.clientapp import ClientApp"),
    ("flwr-in-shells", "renmei/spy.py", "import flwr"),
    ("sql-in-stores", "federation/spy.py", "import sqlmodel"),
    ("sql-in-stores", "audit/spy.py", "from sqlalchemy import text"),
    ("audit-offline", "audit/spy.py", "import grpc"),
    ("audit-offline", "audit/spy.py", "import fedproto.transport"),
]


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders or PACKAGES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "fedproto/v1" not in path.as_posix():
                yield path


def copy_tree(to: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", to)
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    # Modules that the breaks import, so that they need no module of the product.
    for folder in ("member_node", "base_model"):
        (to / folder / "cli_probe.py").write_text("")


def lint(tree: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [
            *(sys.executable, "-c", program, "--no-cache"),
            *(word for contract in contracts for word in ("--contract", contract)),
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": f"{tree}:{tree / 'proto'}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    copy_tree(folder)
    return folder


@pytest.fixture
def tree(copied: Path) -> Iterator[Path]:
    """A copy of the tree that each test gets clean."""
    before = {path: path.read_bytes() for path in copied.rglob("*.py")}
    yield copied
    for path in copied.rglob("*.py"):
        if path not in before:
            path.unlink()
        elif path.read_bytes() != before[path]:
            path.write_bytes(before[path])


def test_every_contract_is_broken_once_by_these_tests() -> None:
    assert set(CONTRACTS) == {contract for contract, _, _ in BREAKS} | {"pure"}


def test_the_tree_keeps_its_contracts(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "path", "line"), BREAKS)
def test_one_bad_import_breaks_its_contract(
    tree: Path, contract: str, path: str, line: str
) -> None:
    (tree / path).write_text(f"{line}\n")
    result = lint(tree, contract)
    assert result.returncode == 1, result.stdout
    assert f"{CONTRACTS[contract]['name']} BROKEN" in " ".join(result.stdout.split())


def test_every_pure_module_is_watched(tree: Path) -> None:
    """One import of a clock in each of them: the linter must name each of them."""
    listed = CONTRACTS["pure"]["source_modules"]
    for module in listed:
        folder = tree / ("proto" if module.startswith("fedproto") else "")
        path = folder / Path(*module.split("."))
        target = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        target.write_text(target.read_text() + "\nimport time\n")
    result = lint(tree, "pure")
    assert result.returncode == 1
    for module in listed:
        assert f"{module} -> time" in result.stdout, module


def test_a_module_that_calls_itself_pure_is_watched() -> None:
    listed = CONTRACTS["pure"]["source_modules"]
    # base_model reads paths inside archives; it takes no part in what parties decide.
    for path in sources(*(folder for folder in PACKAGES if folder != "base_model")):
        says = ast.get_docstring(ast.parse(path.read_text())) or ""
        if re.search(r"\bPure( \([^)]*\))?\.", says):
            name = path.relative_to(ROOT).as_posix().removeprefix("proto/")
            module = name.removesuffix(".py").replace("/", ".")
            assert any(f"{module}.".startswith(f"{item}.") for item in listed), module


def test_a_pure_module_may_import_none_of_the_forbidden_libraries(tree: Path) -> None:
    libraries = CONTRACTS["pure"]["forbidden_modules"]
    path = tree / "proto/fedproto/jcs.py"
    path.write_text(path.read_text() + "".join(f"\nimport {name}\n" for name in libraries))
    found = lint(tree, "pure").stdout
    for library in libraries:
        assert f"fedproto.jcs -> {library} " in found, library


def test_the_stubs_are_what_the_proto_files_generate(tmp_path: Path) -> None:
    names = sorted(path.name for path in (ROOT / "proto/fedproto/v1").glob("*.proto"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", "."),
            *(f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")),
            *(f"fedproto/v1/{name}" for name in names),
        ],
        cwd=ROOT / "proto",
        check=True,
    )
    made = {path.name: path.read_bytes() for path in (tmp_path / "fedproto/v1").iterdir()}
    kept = {
        path.name: path.read_bytes()
        for path in (ROOT / "proto/fedproto/v1").iterdir()
        if "_pb2" in path.name and path.suffix in (".py", ".pyi")
    }
    assert names
    assert made == kept, "run: make stubs"


@pytest.mark.parametrize("name", PYPROJECT["tool"]["importlinter"]["root_packages"])
def test_a_top_level_name_is_ours_and_nobody_elses(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)
    others = {
        found.metadata["Name"]
        for found in metadata.distributions()
        if found.metadata["Name"] != "renmei"
        and any(file.parts[0] == name for file in found.files or ())
    }
    assert others == set()


def test_the_folder_proto_does_not_shadow_the_library_proto(tmp_path: Path) -> None:
    assert not (ROOT / "proto/__init__.py").exists()
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto/__init__.py").write_text("mark = 'library'")
    program = f"import sys; sys.path.append({str(tmp_path)!r}); import proto; print(proto.mark)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "library\n"


def test_every_package_folder_opens_empty() -> None:
    filled = [p for p in sources() if p.name == "__init__.py" and p.read_text().strip()]
    assert filled == []


def test_an_auditor_installs_cryptography_alone() -> None:
    assert [d.split(">")[0] for d in PYPROJECT["project"]["dependencies"]] == ["cryptography"]


# Import names that differ from the name of the distribution.
DISTRIBUTIONS = {"grpc": "grpcio", "google": "protobuf", "opentelemetry": "opentelemetry-sdk"}
ROLES = {
    "proto/fedproto": ("net",),
    "audit": ("net", "postgresql"),
    "federation": ("net", "coordinator"),
    "member_node": ("net", "coordinator", "member", "pretrain"),
    "base_model": ("net", "pretrain", "edge"),
    "renmei": ("net", "coordinator", "member", "pretrain"),
}


def third_party(folder: str) -> set[str]:
    """Return the distributions that a package imports, late imports included."""
    names: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    own = set(PYPROJECT["tool"]["importlinter"]["root_packages"])
    return {DISTRIBUTIONS.get(n, n) for n in names - own - sys.stdlib_module_names}


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_package_declares_every_library_that_it_imports(folder: str) -> None:
    project = PYPROJECT["project"]
    requirements = [*project["dependencies"]]
    for extra in ROLES[folder]:
        requirements += project["optional-dependencies"][extra]
    declared = {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}
    assert third_party(folder) <= declared


def test_flower_is_pinned_exactly_wherever_it_is_asked_for() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    flower = {d for extra in extras.values() for d in extra if d.startswith("flwr")}
    assert flower == {"flwr==1.41.0"}
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert "flwr==1.41.0" in constraints


def test_constraints_name_exact_versions_without_a_local_build() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    assert pins
    assert all(line.count("==") == 1 and "+" not in line and "@" not in line for line in pins)
    assert len({line.split("==")[0].lower() for line in pins}) == len(pins)


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folders, limit in ((PACKAGES, MAX_LINES), (("tests",), MAX_TEST_LINES))
        for path in sources(*folders)
        if (lines := len(path.read_text().splitlines())) > limit
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    mute = [
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert mute == []


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in sources("tests") if path.name.startswith("test_")]
    assert len(names) == len(set(names))


# Calls and imports that are never made, wherever they stand.

BANNED_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "xmlrpc"}
BANNED_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "torch.load": "unpickles",
    "torch.save": "pickles",
    "numpy.load": "may unpickle",
    "np.load": "may unpickle",
    "yaml.load": "builds any object",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "random.seed": "global state",
    "np.random.seed": "global state",
    "tempfile.mktemp": "races",
    "ssl._create_unverified_context": "accepts any certificate",
}
BANNED_ARGUMENTS = {
    ("trust_remote_code", True),
    ("verify", False),
    ("shell", True),
    ("allow_pickle", True),
    ("weights_only", False),
    ("check_hostname", False),
}
# Modules that may open a channel without TLS: on a unix socket of a private directory, nowhere else.
PLAIN_CHANNELS = {
    "federation/server_app.py": "Dispatch, from Flower's ServerApp to the coordinator's own socket",
    "federation/dispatch.py": "Dispatch, the coordinator's side",
}


def violations(source: str, where: str) -> list[str]:
    """Return what a source does that no source may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in BANNED_MODULES]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in BANNED_MODULES:
                found.append(str(node.module))
            found += [a.name for a in node.names if f"{node.module}.{a.name}" in BANNED_CALLS]
        elif isinstance(node, ast.Call):
            found += _call_violations(node, where)
    return found


def _call_violations(node: ast.Call, where: str) -> list[str]:
    name = ast.unparse(node.func)
    found = [name] if name in BANNED_CALLS else []
    if name.endswith(("insecure_channel", "add_insecure_port")):
        address = ast.unparse(node.args[0]) if node.args else ""
        if where not in PLAIN_CHANNELS or not re.match(r"f?['\"]unix:", address):
            found.append(name)
    found += [
        f"{keyword.arg}={keyword.value.value}"
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Constant)
        and (keyword.arg, keyword.value.value) in BANNED_ARGUMENTS
    ]
    return found


@pytest.mark.parametrize("path", list(sources()), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_source_makes_no_banned_call(path: Path) -> None:
    assert violations(path.read_text(), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "eval('1')",
        "exec('1')",
        "import yaml\nyaml.load(x)",
        "f(trust_remote_code=True)",
        "client(verify=False)",
        "run('x', shell=True)",
        "torch.load(x, weights_only=False)",
        "np.load(x, allow_pickle=True)",
        "grpc.insecure_channel('x')",
        "server.add_insecure_port('x')",
        "import os\nos.system('x')",
    ],
)
def test_the_search_for_banned_calls_finds_each_of_them(source: str) -> None:
    assert violations(source, "federation/x.py") != []


@pytest.mark.parametrize("where", [*PLAIN_CHANNELS, "federation/x.py"])
def test_a_channel_without_tls_is_allowed_on_a_unix_socket_of_a_listed_module_only(
    where: str,
) -> None:
    assert (violations("grpc.insecure_channel(f'unix:{x}')", where) == []) is (
        where in PLAIN_CHANNELS
    )
    assert violations("grpc.insecure_channel('127.0.0.1:1')", where) != []
