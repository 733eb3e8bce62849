#!/bin/sh
# Whether a server of OpenAI's API would answer now, in one line and an exit code: `llm-sidecar check URL`.
usage="usage: $0 URL, as http://localhost:8080

Works on any server of OpenAI's API. A key, if it wants one, is taken from API_KEY.

exit code  meaning
        0  ready: a request would be answered now
       64  the words of the command
       69  nobody answers there
       70  the server is there, its model could not be loaded
       75  not ready at the moment: it loads, is stopping, or has too much to do
       76  something else answers there
       77  no key, or a wrong one"

case "$1" in
  -h | --help) echo "$usage"; exit 0 ;;
  http://?* | https://?*) ;;
  *) echo "$usage" >&2; exit 64 ;;
esac
if [ $# -ne 1 ]; then echo "$usage" >&2; exit 64; fi

# No container would do: an address of this machine is another one there.
service=
. "$(dirname "$0")/sidecar.sh"
sidecar check "$1"
