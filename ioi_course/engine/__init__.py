"""The forward pass of three families of models from any layer and position on, for
hundreds of patches at a time."""

from ioi_course.engine.families import *
from ioi_course.engine.forward import *
from ioi_course.engine.patches import *
from ioi_course.engine.products import *
