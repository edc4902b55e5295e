"""An APScheduler job that gets an app context from the option `provide`, and uses a pool in it.

To run it:

    flask --app examples/apscheduler_job.py run
    curl http://127.0.0.1:5000/
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask, current_app, g

import flaskthreads_autopatch

latest = {}


def fetch(currency):
    return {"rate": current_app.config["RATES"][currency], "as_of": g.as_of}


def refresh():
    g.as_of = datetime.now(timezone.utc).isoformat()
    currencies = current_app.config["RATES"]
    with ThreadPoolExecutor() as pool:
        latest.update(zip(currencies, pool.map(fetch, currencies), strict=True))


def create_scheduler():
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(refresh, "interval", seconds=20, id="refresh")
    return scheduler


def create_app():
    app = Flask(__name__)
    app.config["RATES"] = {"CHF": 0.93, "SEK": 11.2, "USD": 1.08}
    # The scheduler's threads belong to no request and inherit nothing, not even from a view that adds a job.
    flaskthreads_autopatch.install(app, provide=["apscheduler.executors.base:run_job"])
    # With several server processes, start it in one of them only: each would have a scheduler of its own.
    app.extensions["scheduler"] = create_scheduler()
    app.extensions["scheduler"].start()

    @app.get("/")
    def index():
        return latest

    return app
