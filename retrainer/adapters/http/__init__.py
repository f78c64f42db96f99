"""The daemon's door for people and Prometheus: health, status, explanations, and requests that become events.

Listens on loopback unless a token is configured. A web page cannot use it: the Host header must name this server (so
a rebound DNS name is refused), an Origin must be this server's own, a POST must be application/json (so a form is
refused), and no CORS header is ever sent.
"""

from retrainer.adapters.http.api import app
from retrainer.adapters.http.server import listen, run

__all__ = ["app", "listen", "run"]
