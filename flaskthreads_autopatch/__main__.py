"""``python -m flaskthreads_autopatch``"""

from .cli import main

main(prog_name="python -m flaskthreads_autopatch")
