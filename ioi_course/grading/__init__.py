"""Grade notebooks on this machine, each in processes of its own, and write a table and a report for each student."""

# Otter's tests in the assignment's autograder zip decide. What is ours is the safe place to run them in: a submission is a
# program written by somebody who would like it to score. What is done about that, on Linux:
#
# - A warm server (`ioi_course.grading.worker`) imports torch and the course once and forks for each submission, so that
#   a submission costs seconds. It starts with an almost empty environment and knows neither tests nor other submissions.
# - The kernel confines the fork, whatever runs in it (`ioi_course.grading.sandbox`). Namespaces: no network at all, and no process
#   outlives it. Landlock: it reads Python, its libraries and the system's files, writes in a folder of its own that is
#   removed afterwards, and sees no home directory, submission, report or zip. Limits: memory, size of a file.
# - An audit hook denies and reports what a notebook has no business to do: files elsewhere, network, processes, signals,
#   ctypes, a search through memory, a look into the grader's frames. Such a submission gets the status `review`.
# - The tests reach a process only after all cells have run, over a socket, never as a file. Each question is judged in
#   a fork of its own, which gets that question's tests only, so that what one answer does to its process, and what it
#   learns of its tests, ends with the question. Functions of the course, otter and torch that cells replaced are put back
#   first; and when a question's tests have run, nothing may have been replaced again, and tests whose outcome is known
#   must come out so, or the question gets nothing.
# - A result counts only with the random number that came with the tests. Points are computed here, from the zip.
# - Cells run one by one. A cell that kills its process (os._exit, too much memory, an endless loop until the time limit)
#   is left out and the rest runs again: it costs what depends on it. The same with tests. All of a submission takes at
#   most FACTOR times the time limit.
#
# What a determined attacker can still do: answers run in the process that runs their tests, since the tests call them. Who
# leaves Python's rules (a crafted code object, memory corruption through torch or numpy, a hook that goes around the audit
# hook) can read the tests of the question being judged, take the number from memory and report that they passed. Without
# that effort an answer may also tell that it is being tested and return, say, an object that equals everything; good tests
# look at types. A socket file of the host, such as Docker's, can be reached by who gets around the audit hook, and many
# small files can fill the disk of the temporary folder. Where the kernel lacks namespaces or Landlock (a run says so)
# only the audit hook stands in for them. So: read what has the status `review`; grade as a user with no rights
# worth having; and where a grade decides something, run the whole command in a container or virtual machine without
# network and secrets, and talk to the student about the answer.
