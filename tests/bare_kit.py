"""`renmei audit` as on an auditor's machine: a process with the standard library and `cryptography` alone."""

import os
import subprocess
import sys

ENV = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "RENMEI_"))}

# The launcher of an auditor's machine: nothing but the standard library and `cryptography`.
BARE = """
import sys
allowed = {"cryptography", "cffi", "_cffi_backend", "fedproto", "audit", "renmei"}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in allowed and top[0] != "_":
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Only())
import renmei.cli
renmei.cli.MODULES = ("renmei.builtin", "audit.cli")
sys.exit(renmei.cli.main(sys.argv[1:]))
"""


def audit(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BARE, "audit", *map(str, words)],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
