"""One language model beside your application, inside one memory number that is kept."""

__version__ = "0.1.0"
