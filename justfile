# The daily commands: `just` lists them. Each is a command that also works without just.

venv := env("LIDIT_VENV", ".venv")
python := venv / "bin/python"

# List the commands
default:
    @just --list

# Install what the tests need, lint, and test everything or what is named: just test tests/models
test *FILES:
    bash launch/test.sh {{ FILES }}

# Install, draw, score, train a little, resume
quickstart *FOLDER:
    bash launch/quickstart.sh {{ FOLDER }}

# Lint
lint:
    {{ venv }}/bin/ruff check .
    {{ venv }}/bin/ruff format --check .
    {{ venv }}/bin/pyright --pythonpath {{ python }}
    {{ venv }}/bin/shellcheck --external-sources launch/*.sh .ci/run

# Format, and mend what the linter can
format:
    {{ venv }}/bin/ruff check --fix .
    {{ venv }}/bin/ruff format .

# Build the documentation into build/site
docs:
    {{ python }} -m mkdocs build --strict

# Show the documentation at http://127.0.0.1:8000
docs-serve:
    {{ python }} -m mkdocs serve

# Write docs/plans.md again, after a change of the formula
plans:
    {{ venv }}/bin/lidit plan --all-recipes --out=docs

# Kill and corrupt training runs, and print what survived
faults:
    {{ python }} -m tests.faults

# Run lidit on random command lines, settings and folders
fuzz CASES="2000":
    {{ python }} -m tests.fuzz --cases {{ CASES }} --processes 50

# Run tests as older processors and other terminals would
other-machines *PARTS:
    {{ python }} -m tests.other_machines {{ PARTS }}
