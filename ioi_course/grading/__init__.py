"""Grade notebooks on this machine, where no student's code has run, and write a table
and a report for each student."""

# Otter's tests in the assignment's autograder zip decide. What is ours is that they are
# run where the submission cannot reach them. On Linux:
#
# - A warm server (`worker`) imports torch and the course once, and forks. It runs no
#   submission and sees no test.
# - The *answerer* (`answerer`), a fork, runs the cells of one submission, and
#   afterwards, in a fork for each question, only answers calls. It is the student's
#   from the first cell on, and nothing that it says about itself counts for points.
# - A *judge* (`judge`), another fork, gets the tests of one question, asks the answerer
#   by name and arguments (`asking`), and compares what comes back with what it computes
#   itself. Public tests of all questions are judged before any hidden one; questions
#   for which the library is taken away have a run of the cells of their own. The inputs
#   of hidden tests come of a seed that is drawn when the cells have run (`draws`).
# - Between the two goes plain data in a format that is written down (`wire`): no
#   objects, no code, no pickle. A model or prompts go as a recipe, from which the other
#   side makes its own copy; a function as the name of one that both have (`recipes`).
#   So the same tests give the same points in a notebook, on Gradescope and here.
# - Where a question asks to build what the library has, the library is not there while
#   it is graded, but for prompts, models and the metric (`absence`).
# - The kernel keeps the answerer in (`sandbox`, `seccomp`): no network, no other
#   processes, no files but Python's and its own folder's, no changes of rights,
#   limits on time and memory (`memory`). Without that the grader refuses to run. A
#   hook of Python's reports what a cell tried beyond it; such a submission gets
#   the status `review`.
# - Cells run one by one. A cell that ends its process is left out and the rest runs
#   again: it costs what depends on it. The same with answers. Time is counted in
#   seconds of computing, so that a busy machine costs nobody points.
# - What is handed in is read with care (`submissions`, `notebooks`): one odd file costs
#   one student a row with the reason, never the run.
#
# What a student can still do, in plain words: hand in answers that somebody else wrote,
# or the library's code copied as text. Learn a bit of a hidden test from each report.
# Go around the alarm, which only watches. Find a bug in the kernel, and have the rights
# of the user who grades. So: grade as a user with no rights worth having, in a
# container or virtual machine where a grade decides something; read what has the status
# `review`; and spot-check: open a few notebooks with full points, read the answers to
# the last questions, and ask two or three students to explain theirs. docs/threats.md
# lists what was tried, and the test for each.
