"""Print the versions installed here as pip constraints, each limited to the Pythons
that the version supports."""

from importlib.metadata import distributions

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

SUPPORTED = ["3.10", "3.11", "3.12", "3.13"]
OURS = {"ioi-course", "pip", "setuptools"}

print(
    "# Written by `make constraints`: the versions that the tests passed with "
    "(Python 3.11)."
)
rows = {}
for dist in distributions():
    name = canonicalize_name(dist.metadata["Name"])
    needs = SpecifierSet(dist.metadata.get("Requires-Python") or "")
    ok = [python for python in SUPPORTED if needs.contains(python + ".99")]
    marker = "" if ok == SUPPORTED else f' ; python_version >= "{ok[0]}"'
    rows[name] = f"{name}=={Version(dist.version).public}{marker}"
print("\n".join(row for name, row in sorted(rows.items()) if name not in OURS))
