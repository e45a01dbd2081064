"""The checks of the exercises, one module per chapter; how they work is appendix D."""

from ioi_course.checks.ablation import *  # noqa: F403
from ioi_course.checks.adversarial import *  # noqa: F403
from ioi_course.checks.attention import *  # noqa: F403
from ioi_course.checks.attribution import *  # noqa: F403
from ioi_course.checks.circuit import *  # noqa: F403
from ioi_course.checks.heads import *  # noqa: F403
from ioi_course.checks.inhibition import *  # noqa: F403
from ioi_course.checks.lens import *  # noqa: F403
from ioi_course.checks.metrics import *  # noqa: F403
from ioi_course.checks.movers import *  # noqa: F403
from ioi_course.checks.patching import *  # noqa: F403
from ioi_course.checks.paths import *  # noqa: F403
from ioi_course.checks.prompts import *  # noqa: F403
from ioi_course.checks.universality import *  # noqa: F403
