"""What setup_env.sh asks each Python that it finds: version, whether it can make environments, where it really lies.

Answers on one line. For any Python, however old.
"""

import os
import sys

try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401

    answer = "venv"
except ImportError:
    answer = "no-venv"
# Links are followed, for the name may be found in the very .venv that is about to be made anew.
print(" ".join([".".join(map(str, sys.version_info[:2])), answer, os.path.realpath(sys.executable)]))
