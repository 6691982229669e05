"""What the page asks for, by subject. No model work is done here (jobs.py)."""

from sam2long.ui.routes.long_work import router as long_work
from sam2long.ui.routes.looking import router as looking
from sam2long.ui.routes.prompting import router as prompting

ROUTERS = (looking, prompting, long_work)
