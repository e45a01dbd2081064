# The targets set up .venv on first use and then call the project's own command, ioi-course.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: help setup course test test-pythons lab docs bench notebooks student assignments constraints clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

setup: $(STAMP) ## make .venv with the versions that the tests passed with

$(STAMP): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lab,dev]'
	@touch $(STAMP)

course: setup ## run every chapter; pages, index and report.json under build/course/
	$(BIN)/ioi-course run

test: setup ## everything that CI runs
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 60

test-pythons: setup ## the package's tests and three chapters on each Python of the course that is on this machine (slow)
	$(BIN)/python tools/pythons.py

lab: setup ## open the chapters in JupyterLab
	$(BIN)/ioi-course lab

docs: setup ## build the website with Quarto
	$(BIN)/ioi-course docs

bench: setup ## time the patching engine (12 minutes) and the scores of all edges, on GPT-2 small's shape and SmolLM2; build/bench*.json
	$(BIN)/python benchmarks/patching.py
	$(BIN)/python benchmarks/discovery.py

notebooks: setup ## after an edit: make stubs, badges and links, export the modules, run every chapter, store its outputs, clean, README, student/
	$(BIN)/python tools/stubs.py
	$(BIN)/python tools/badges.py
	$(BIN)/python tools/minutes.py
	$(BIN)/python tools/glossary.py
	$(BIN)/nbdev-export
	$(BIN)/ioi-course run --model synthetic --save
	$(BIN)/ioi-course run library --model synthetic --save --out build/library
	$(BIN)/nbdev-clean
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/student.py

student: setup ## write student/, the chapters without solutions and outputs
	$(BIN)/python tools/student.py

assignments: setup ## build the graded assignments into build/assignments/: student notebooks and autograders
	$(BIN)/python tools/assignments.py

constraints: setup ## write constraints.txt from what is installed in .venv
	$(BIN)/python tools/constraints.py > constraints.new && mv constraints.new constraints.txt

clean: ## remove what was built, not .venv
	rm -rf build dist _docs _proc *.egg-info
