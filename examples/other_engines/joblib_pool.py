"""joblib: the workers are processes of loky."""

import shop
from joblib import Parallel, delayed

from flaskthreads_autopatch import carry


def greet_all(names):
    """Greet each of *names* in another process, with the context that is active here."""
    greet = delayed(carry(shop.greet, app="shop:create_app", g=("user_id",)))
    return Parallel(n_jobs=2)(greet(name) for name in names)
