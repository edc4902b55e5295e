"""APScheduler with a job store on disk. To run the scheduler: ``python examples/other_engines/apscheduler_jobs.py``."""

import os

import shop
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from flaskthreads_autopatch import carry

STORE = {"url": os.environ.get("JOBS", "sqlite:///jobs.sqlite")}


def greet_later(name, **trigger):
    """Store a job, in a view. The job has the context of the view, each time it runs."""
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_jobstore("sqlalchemy", **STORE)
    scheduler.start(paused=True)
    carried = carry(shop.greet, app="shop:create_app", g=("user_id",))
    # A store keeps the name of a function: it takes the method, and refuses the callable itself.
    scheduler.add_job(carried.run, args=[name], name="greet", **trigger)
    scheduler.shutdown()


if __name__ == "__main__":
    scheduler = BlockingScheduler(timezone="UTC")
    scheduler.add_jobstore("sqlalchemy", **STORE)
    scheduler.start()
