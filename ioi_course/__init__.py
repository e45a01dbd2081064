"""Modules:

- `ioi_course.publish.staging`: What nbdev hands to Quarto of a notebook: every cell that a reader needs, and nothing that only tools read.
- `ioi_course.publish.warm`: Kernels that start in a tenth of a second: a process that has made the slow imports forks for each of them."""

__version__ = "0.1.0"
