"""Docker's health check: 0 when a generation would be taken now, 1 with the reason when not."""

import os
import sys
import urllib.error
import urllib.request

url = f"http://127.0.0.1:{os.environ.get('PORT') or 8000}/readyz"
try:
    # No proxy of the environment stands between the container and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=4) as answer:
        print(answer.read(500).decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read(500).decode(errors="replace") or f"{url} answers {error.code}")
except OSError as error:
    sys.exit(f"{url}: {error}")
