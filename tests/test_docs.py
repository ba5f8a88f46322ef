"""What the documentation says can be done: commands parse, settings exist, links lead somewhere."""

import argparse
import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lidit_jax.cli import build_parser
from lidit_jax.commands.train import split_overrides
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import Config
from lidit_jax.config.values import field_types
from lidit_jax.errors import LiditError

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
FIELDS = field_types(Config)
GROUPS = {".".join(path.split(".")[:i]) for path in FIELDS for i in range(1, path.count(".") + 1)}
BRITISH = re.compile(
    r"\b\w*(?:colour|behaviour|neighbour|favour|licence|centre|artefact"
    r"|(?:general|initial|maxim|memor|minim|normal|optim|organ|quant|recogn|summar|util)"
    r"is(?:e|ing|ation))\w*",
    re.IGNORECASE,
)
PLACEHOLDERS = {"PRICE": "1", "float16|bfloat16": "float16"}
"""What pages write where a value stands, and one that it stands for."""


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=_name)


def blocks(page: Path, language: str) -> str:
    """All blocks of code in a language."""
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)


def spans(page: Path) -> list[str]:
    """All code within the lines of a page."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> Iterator[tuple[list[str], bool]]:
    """The words of every command of a page, and whether it stands in a block, to be copied."""
    shell = blocks(page, "bash").replace("\\\n", " ").splitlines()
    for lines, in_block in ((shell, True), (spans(page), False)):
        for line in lines:
            if not re.match(r"(lidit|python|bash|pip|just|mkdocs) ", line):
                continue
            for placeholder, value in PLACEHOLDERS.items():
                line = line.replace(placeholder, value)
            yield shlex.split(line, comments=True), in_block


def launcher_parser() -> argparse.ArgumentParser:
    sys.path.insert(0, str(ROOT / "launch"))
    try:
        from launcher.command_line import build_parser
    finally:
        sys.path.remove(str(ROOT / "launch"))
    return build_parser()


def check_lidit(words: list[str]) -> None:
    """Parses a command of `lidit`, and loads its recipe with its overrides.

    Raises:
      LiditError: when it would be refused.
    """
    overrides = []
    if words[:1] in (["train"], ["plan"], ["bench"]):
        overrides, words = split_overrides(words)
    options = build_parser().parse_args(words, argparse.Namespace(overrides=overrides))
    recipe = getattr(options, "config", None) or "demo"
    stands_for_any = Path(recipe).stem.isupper()  # configs/NAME.py
    load_recipe("demo" if stands_for_any else recipe, overrides)


def check(words: list[str]) -> None:
    """Refuses a command that names something which does not exist.

    Raises:
      LiditError, SystemExit, AssertionError: of whoever reads the command.
    """
    match words:
        case ["lidit", *rest]:
            check_lidit(rest)
        case ["python", "launch/run.py", *rest]:
            launcher_parser().parse_args(rest[: rest.index("train")])
            check_lidit(rest[rest.index("train") :])
        case ["python", "-m", module, *_] if module.startswith("tests."):
            assert importlib.util.find_spec(module), module
        case ["python", "-m", "pytest", file] | ["bash", file, *_]:
            assert (ROOT / file).exists(), file
        case ["just", recipe, *_]:
            assert recipe in just_recipes(), recipe


def refusal(words: list[str]) -> str:
    """Why a command would be refused; empty where it would not."""
    try:
        check(words)
    except SystemExit as end:  # after --help, or of the launcher, which has said why
        return "see its error" if end.code else ""
    except (LiditError, AssertionError) as error:
        return str(error)
    return ""


@every_page
def test_every_command_would_be_accepted(page):
    for words, in_block in commands(page):
        if not in_block and any("…" in word for word in words):
            continue
        reason = refusal(words)
        # Within a line `lidit plan --search` leaves out what the text has named before.
        if in_block or "required" not in reason:
            assert reason == "", f"{_name(page)}: {shlex.join(words)}"


def test_commands_that_do_not_exist_are_found():
    for wrong in (
        "lidit sample --checkpoint=demo --prompt=x --out=x.png --sampler-name=unipc",
        "lidit train --config=demo --workdir=x --config.model.dept=4",
        "lidit train --config=lidit_10b:2048px --workdir=x",
        "lidit train --config=configs/nothing.py --workdir=x",
        "python launch/run.py --on=moon train --config=demo --workdir=x",
    ):
        assert refusal(shlex.split(wrong)), wrong
    for wrong in ("python -m tests.nothing", "bash launch/nothing.sh", "just nothing"):
        assert refusal(shlex.split(wrong)), wrong


@every_page
def test_python_compiles(page):
    ast.parse(blocks(page, "python"))


@every_page
def test_every_setting_exists(page):
    groups = "|".join(sorted({path.partition(".")[0] for path in GROUPS}))
    for code in spans(page):
        for path in re.findall(rf"(?<![\w./])(?:config\.)?((?:{groups})\.[a-z0-9_.]+)", code):
            if not path.endswith((".py", ".json", ".safetensors")):
                assert path.rstrip(".") in FIELDS.keys() | GROUPS, f"{_name(page)}: {code}"


@every_page
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", prose(page)):
        if ":" not in target:
            assert (page.parent / target).exists(), f"{_name(page)}: {target}"


@every_page
def test_extras_are_those_of_the_project(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for names in re.findall(r"lidit-jax\[([a-z0-9_,]+)\]", page.read_text("utf-8")):
        assert set(names.split(",")) <= extras["optional-dependencies"].keys(), _name(page)


@every_page
def test_spelling_is_american(page):
    found = [match[0] for match in BRITISH.finditer(re.sub(r"`[^`]*`", "", prose(page)))]
    assert found == [], _name(page)


def test_british_spelling_is_found():
    for word in ("coloured", "licence", "centre", "optimised", "recognise", "utilisation"):
        assert BRITISH.search(word), word
    for word in ("colored", "otherwise", "precise", "raises", "noise", "optimized", "promise"):
        assert not BRITISH.search(word), word


def test_the_readme_is_short():
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 170


# --- the site ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooks():
    """`docs/hooks.py`, as MkDocs loads it."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tests_install_what_builds_the_site():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(extras["docs"]) < set(extras["test"])


def test_the_site_builds_without_a_warning(tmp_path):
    """Five seconds; broken links, anchors and pages outside of the navigation are warnings."""
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for name in ("index", "api", "configuration", "contributing", "changelog", "demo-model"):
        folder = tmp_path if name == "index" else tmp_path / name
        assert (folder / "index.html").exists(), name


def test_the_reference_has_every_field_with_its_text(hooks):
    page = hooks.configuration_page()
    for path in FIELDS:
        assert f"| `{path}` |" in page, path
    width = (
        "| `model.width` | integer; greater than 0, and finite | `1152` | Width D of every token"
    )
    assert width in page
    assert "| `optimizer.beta1` | number; at least 0 and less than 1 | `0.9` |" in page
    assert "| `model.dtype` | `'float32'`, `'bfloat16'` |" in page
    assert "| `vae.multipliers` | list of integers |" in page


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("README.md", "[a](docs/train.md#recipes)", "[a](train.md#recipes)"),
        ("README.md", "![a](docs/demo_grid.png)", "![a](demo_grid.png)"),
        ("README.md", "[a](CITATION.cff)", "a"),
        ("docs/train.md", "[a](data.md)", "[a](data.md)"),
        ("docs/train.md", "[a](../CONTRIBUTING.md#style)", "[a](contributing.md#style)"),
        ("docs/launch/costs.md", "[a](../plans.md)", "[a](../plans.md)"),
        (
            "docs/launch/costs.md",
            "[a](../../lidit_jax/config/schema.py#model)",
            "[a](../configuration.md#model)",
        ),
        ("docs/train.md", "[a](https://arxiv.org/x)", "[a](https://arxiv.org/x)"),
        ("docs/train.md", "[a](#recipes)", "[a](#recipes)"),
        ("docs/train.md", "[a](no-such-page.md)", "[a](no-such-page.md)"),
    ],
)
def test_links_into_the_repository_become_links_between_pages(hooks, source, link, expected):
    assert hooks.site_links(link, source) == expected


# --- the files of everyday work ----------------------------------------------------------------


def just_recipes() -> dict[str, list[str]]:
    """Recipes of the justfile, each with its lines."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "justfile").read_text("utf-8").splitlines():
        if head := re.match(r"([a-z-]+)( [^:]*)?:($|[^=])", line):
            lines = found.setdefault(head[1], [])
        elif line.startswith("    "):
            lines.append(line.strip())
    return found


def test_the_justfile_runs_what_there_is():
    recipes = just_recipes()
    assert {"default", "test", "quickstart", "lint", "docs"} <= recipes.keys()
    for lines in recipes.values():
        for line in lines:
            line = line.replace("{{ python }}", "python").replace("{{ venv }}/bin/", "")
            words = [word for word in line.split() if word not in ("{{", "}}", "FILES", "FOLDER")]
            check([word for word in words if word not in ("CASES", "PARTS")])


def test_continuous_integration_runs_the_scripts_on_every_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    jobs = workflow["jobs"]
    for job in ("test", "quickstart"):
        assert jobs[job]["strategy"]["matrix"]["python"] == versions
    assert any("actionlint" in step.get("uses", "") for step in jobs["workflows"]["steps"])
    lines = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert {"bash launch/test.sh", "bash launch/quickstart.sh"} <= set(lines)
    for line in lines:
        check(shlex.split(line))


@pytest.mark.parametrize(
    ("files", "schema"),
    [
        (".github/workflows/*.yml", "github-workflows"),
        (".github/ISSUE_TEMPLATE/config.yml", "github-issue-config"),
        (".github/ISSUE_TEMPLATE/[!c]*.yml", "github-issue-forms"),
    ],
)
def test_workflows_and_issue_forms_follow_their_schema(files: str, schema: str):
    names = [str(file) for file in sorted(ROOT.glob(files))]
    assert names
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    ended = subprocess.run([*program, *names], capture_output=True, text=True)
    assert not ended.returncode, ended.stdout + ended.stderr


def test_a_release_is_the_version_that_its_tag_names():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    # YAML reads the key "on" as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    steps = [step.get("run", "") for step in workflow["jobs"]["build"]["steps"]]
    assert any('test "v$version" = "$GITHUB_REF_NAME"' in step for step in steps)
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_issue_forms_ask_for_the_doctor():
    for name in ("bug", "run"):
        form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text("utf-8"))
        labels = {part["attributes"]["label"] for part in form["body"]}
        assert "Output of `lidit doctor`" in labels


def test_the_hooks_of_pre_commit_are_the_linters_of_the_suite():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]
    script = (ROOT / "launch/test.sh").read_text("utf-8")
    for hook in hooks["hooks"]:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/"), "made by launch/test.sh"
        assert program.removeprefix(".venv/bin/") in script
