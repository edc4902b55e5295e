"""Apps that others wrote, installed from PyPI when the tests run: they answer the same with the library off and on."""
