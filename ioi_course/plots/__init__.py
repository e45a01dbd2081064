"""One line per plot: heads, positions, attention and circuits, with a picture and a
table where no script runs."""

from ioi_course.plots import pictures
from ioi_course.plots.charts import *
from ioi_course.plots.core import *
from ioi_course.plots.diagram import *
from ioi_course.plots.heatmaps import *
from ioi_course.plots.patterns import *
