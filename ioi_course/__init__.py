"""Modules:

- `ioi_course.publish.warm`: Kernels that start in a tenth of a second: a process that has made the slow imports forks for each of them."""

__version__ = "0.1.0"
