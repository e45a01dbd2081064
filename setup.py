"""Package metadata comes from settings.ini; pyproject.toml holds the name
and the tools' settings."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(root / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


def lines(key: str) -> list[str]:
    return [line.strip() for line in cfg.get(key, "").splitlines() if line.strip()]


init = (root / "ioi_course" / "__init__.py").read_text(encoding="utf-8")
extras = {
    key.removesuffix("_requirements"): lines(key)
    for key in cfg
    if key.endswith("_requirements")
}
status = {
    "1": "1 - Planning",
    "2": "2 - Pre-Alpha",
    "3": "3 - Alpha",
    "4": "4 - Beta",
    "5": "5 - Production/Stable",
}

setup(
    version=init.split('__version__ = "')[1].split('"')[0],
    description=cfg["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"],
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    url=cfg["git_url"],
    project_urls={"Documentation": cfg["doc_url"], "Repository": cfg["git_url"]},
    packages=find_packages(include=["ioi_course*"]),
    package_data={"ioi_course": ["data/**/*", "bundled/data/**/*"]},
    include_package_data=False,
    install_requires=lines("requirements"),
    extras_require=extras,
    entry_points={"console_scripts": lines("console_scripts")},
    classifiers=[
        f"Development Status :: {status[cfg['status']]}",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
