"""The checks of the exercises: a module per chapter, which names those beside it. How
they work is in nbs/library/checks/core.ipynb."""

from ioi_course.checks.ablation import *
from ioi_course.checks.adversarial import *
from ioi_course.checks.attention import *
from ioi_course.checks.attribution import *
from ioi_course.checks.carriers import *
from ioi_course.checks.circuit import *
from ioi_course.checks.discovery import *
from ioi_course.checks.heads import *
from ioi_course.checks.inhibition import *
from ioi_course.checks.lens import *
from ioi_course.checks.metrics import *
from ioi_course.checks.movers import *
from ioi_course.checks.patching import *
from ioi_course.checks.paths import *
from ioi_course.checks.prompts import *
from ioi_course.checks.removal import *
from ioi_course.checks.scale import *
from ioi_course.checks.transformer import *
from ioi_course.checks.universality import *
from ioi_course.checks.unopened import *
