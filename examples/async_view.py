"""An async view that hands blocking calls to threads. Needs Flask's extra: pip install "flask[async]".

To run it:

    flask --app examples/async_view.py run
    curl "http://127.0.0.1:5000/?user=alice"
"""

import asyncio

from flask import Flask, current_app, g, request

import flaskthreads_autopatch


def forecast(city):
    g.city = city  # in this thread's own g: the calls that run beside this one do not see it
    return f"{g.city}: {current_app.config['FORECASTS'][city]}° for {g.user}"


def greeting():
    return f"Hello {request.args.get('user', 'nobody')}"


def create_app():
    app = Flask(__name__)
    app.config["FORECASTS"] = {"Bern": 11, "Oslo": 4, "Rome": 23}
    flaskthreads_autopatch.install(app)

    @app.before_request
    def set_user():
        g.user = request.args.get("user", "nobody")

    @app.get("/")
    async def index():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(None, forecast, city) for city in current_app.config["FORECASTS"]]
        # asyncio.to_thread() has always shown the view's own context to its thread, and still does.
        return {"greeting": await asyncio.to_thread(greeting), "forecasts": await asyncio.gather(*calls)}

    return app
