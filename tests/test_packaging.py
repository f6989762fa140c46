"""What the package shows, what it imports, and what its wheel carries."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import lora_scene
from lora_scene.recipe import recipe_names

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lora_scene"
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "click")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def modules() -> list[str]:
    files = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def test_public_names_are_these():
    expected = {"Adapter", "LoraSceneError", "Recipe", "Scene", "load_adapter", "train"}
    assert expected <= set(lora_scene.__all__)
    assert sorted(lora_scene.__all__) == sorted(set(lora_scene.__all__))


@pytest.mark.parametrize("name", lora_scene.__all__)
def test_public_name_is_there(name):
    assert getattr(lora_scene, name) is not None
    assert name in dir(lora_scene)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = lora_scene.trian


@pytest.mark.parametrize("name", [name for name in modules() if not name.endswith("__main__")])
def test_every_name_in_all_of_a_module_is_there(name):
    module = importlib.import_module(name)
    assert module.__doc__, "a module says what it is"
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), public


@pytest.mark.parametrize(
    "names",
    [
        ("lora_scene",),
        ("lora_scene.errors", "lora_scene.recipe"),
        ("lora_scene.scenes.scene", "lora_scene.scenes.union", "lora_scene.scenes.augment"),
    ],
    ids=lambda names: names[-1],
)
def test_light_modules_import_without_heavy_libraries(names):
    script = f"import sys, {', '.join(names)}; print([n for n in {HEAVY} if n in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_every_package_folder_is_listed():
    listed = set(project()["tool"]["setuptools"]["packages"])
    files = (f for f in PACKAGE.rglob("*") if f.is_file() and f.parent.name != "__pycache__")
    found = {".".join(f.parent.relative_to(ROOT).parts) for f in files}
    assert found | {"lora_scene.recipes"} == listed, "folders of data too, or builds warn of each"


def test_folder_with_modules_has_an_init():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_imported_libraries_are_dependencies():
    declared = {
        requirement.split(">")[0].split("[")[0].strip().lower().replace("-", "_")
        for group in (
            project()["project"]["dependencies"],
            *project()["project"]["optional-dependencies"].values(),
        )
        for requirement in group
    }
    names = {"opencv_python_headless": "cv2", "pillow": "PIL"}
    available = {names.get(name, name) for name in declared} | set(sys.stdlib_module_names)
    imported = set()
    for file in PACKAGE.rglob("*.py"):
        for line in file.read_text("utf-8").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("import", "from") and not words[1].startswith("."):
                imported.add(words[1].split(".")[0].rstrip(","))
    unknown = {name for name in imported - available if importlib.util.find_spec(name)}
    assert unknown == {"lora_scene"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    script = (
        "import os, shutil, sys; from setuptools import build_meta; "
        "print(build_meta.build_wheel(sys.argv[1]))"
    )
    copy = tmp_path_factory.mktemp("source") / "project"
    for part in ("lora_scene", "recipes"):
        _copy(ROOT / part, copy / part)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [sys.executable, "-c", script, str(out)], cwd=copy, capture_output=True, check=True
    )
    assert b"Warning" not in built.stderr, "the first thing that who installs it would see"
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> set[str]:
    """Build the source distribution of a copy of what git would give; return its names."""
    copy, out = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("sdist")
    for part in (".ci", "lora_scene", "recipes", "tests", "docs", "benchmarks"):
        _copy(ROOT / part, copy / part)
    for file in ROOT.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", script, str(out)], cwd=copy, capture_output=True, check=True
    )
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_a_source_distribution_can_be_tested_and_read(sdist):
    needed = {"Makefile", "constraints.txt", "setup.cfg", "CHANGELOG.md", "CONTRIBUTING.md"}
    for folder in ("tests", "docs", "benchmarks", "recipes", "lora_scene", ".ci"):
        files = (file for file in (ROOT / folder).rglob("*") if file.is_file())
        needed |= {f.relative_to(ROOT).as_posix() for f in files if "__pycache__" not in f.parts}
    assert not needed - sdist


def test_no_shipped_file_names_a_path_of_the_machine_that_made_it():
    homes = re.compile(rb"[\"'(](?:/(?:home|root|work|tmp|Users|mnt)/\w|[A-Z]:\\\\\w)")
    named = [
        (file.relative_to(ROOT).as_posix(), found.group())
        for file in PACKAGE.rglob("*")
        if file.suffix in (".json", ".toml", ".txt", ".md", ".html", ".safetensors", ".png")
        for found in [homes.search(file.read_bytes())]
        if found
    ]
    assert named == []


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            made = target / file.relative_to(source)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(file.read_bytes())


def test_wheel_carries_every_module_recipe_and_data_file(wheel):
    carried = set(zipfile.ZipFile(wheel).namelist())
    expected = {file.relative_to(ROOT).as_posix() for file in PACKAGE.rglob("*.py")}
    expected |= {f"lora_scene/recipes/{name}.toml" for name in recipe_names()}
    expected |= {"lora_scene/py.typed", "lora_scene/recipes/__init__.py"}
    folders = [PACKAGE / "backbones" / "mini", PACKAGE / "scenes" / "demo"]
    folders.append(PACKAGE / "judging" / "mini_judge")
    for folder in folders:
        files = (file for file in folder.rglob("*") if file.is_file())
        expected |= {f.relative_to(ROOT).as_posix() for f in files if f.suffix != ".pyc"}
    assert not expected - carried


def test_wheel_runs_without_the_source_beside_it(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = (
        "import lora_scene, lora_scene.recipe as r; print(lora_scene.__file__); "
        "print(r.load_recipe('paper').phase1.steps)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    where, steps = found.stdout.split()
    assert Path(where).is_relative_to(tmp_path / "site")
    assert steps == "400"


def test_the_pages_import_public_names_alone():
    root = Path(__file__).parents[1]
    for page in [root / "README.md", *(root / "docs").rglob("*.md")]:
        for line in page.read_text("utf-8").splitlines():
            assert not re.match(r"\s*(from lora_scene\.|import lora_scene\.)", line), (page, line)
            if match := re.match(r"from lora_scene import ([\w, ]+)$", line):
                assert set(match[1].split(", ")) <= set(lora_scene.__all__), (page, line)
