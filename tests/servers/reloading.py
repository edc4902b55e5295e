"""``python -m tests.servers.reloading MODULE FILE``: Werkzeug's server, with its reloader, which watches FILE too."""

from __future__ import annotations

import importlib
import os
import sys

from werkzeug.serving import is_running_from_reloader, run_simple

if __name__ == "__main__":
    application = importlib.import_module(sys.argv[1]).application
    if is_running_from_reloader():
        print(f"process {os.getpid()} serves", flush=True)
    run_simple("127.0.0.1", 0, application, use_reloader=True, threaded=True, extra_files=[sys.argv[2]])
