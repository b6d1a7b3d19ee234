"""What the service control manager starts: `python.exe -I winsvc\\host.py run|supervise ...`, the environment's packages added.

See services.Place for why it is not the environment's own python.exe.
"""

import site
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
site.addsitedir(str(_ROOT / ".venv" / "Lib" / "site-packages"))
sys.path.insert(0, str(_ROOT))

from winsvc.service import main  # noqa: E402  not before its packages can be found

if __name__ == "__main__":
    main(sys.argv[1:])
