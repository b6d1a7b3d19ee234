"""The program that the service control manager starts: `python.exe -I winsvc\\host.py run|supervise ...`.

It adds the virtual environment's packages itself; `services.Place` says why it is not started by the environment's python.exe.
"""

import site
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
site.addsitedir(str(_ROOT / ".venv" / "Lib" / "site-packages"))
sys.path.insert(0, str(_ROOT))

from winsvc.service import main  # noqa: E402  its packages must be found first

if __name__ == "__main__":
    main(sys.argv[1:])
