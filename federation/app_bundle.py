"""The Flower app bundle: a pyproject.toml and nothing else.

It names components that are installed on each side. No code travels, and a member would not run any.
"""

RUN_KEY = "renmei-run"

PYPROJECT = f"""\
[project]
name = "renmei"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.flwr.app]
publisher = "renmei"

[tool.flwr.app.components]
serverapp = "federation.server_app:app"
clientapp = "member_node.client_app:app"

[tool.flwr.app.config]
{RUN_KEY} = ""
""".encode()
