"""The health check of the service's container: exit status 0 if the service is ready, else 1."""

import os
import sys
import urllib.request

url = f"http://localhost:{os.environ['UBERT_PORT']}/readyz"
without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    without_proxy.open(url, timeout=4).close()
except OSError as error:  # an HTTP error status is one too
    sys.exit(f"{url}: {error}")
