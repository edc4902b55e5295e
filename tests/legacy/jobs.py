"""A legacy app's task, for Celery's worker: in an app context, as Flask's documentation has it, and with a thread."""

import os
import threading
from pathlib import Path

from celery import Celery
from flask import Flask, current_app, g

folder = Path(os.environ["JOBS"])
jobs = Celery("jobs", broker="filesystem://", backend=f"file://{folder}/results")
jobs.conf.broker_transport_options = {
    "data_folder_in": folder / "queue",
    "data_folder_out": folder / "queue",
    "control_folder": folder / "control",
}
app = Flask("shop")


@jobs.task
def look(user):
    """What a thread that the task starts sees of the task's context."""
    seen = []

    def in_thread():
        try:
            seen.append(f"{g.user} {current_app.name}")
        except RuntimeError as error:
            seen.append(type(error).__name__)

    with app.app_context():
        g.user = user
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    return seen[0]
