#!/bin/sh
# Whether a server of OpenAI's API would answer now. `llm-sidecar check URL` says the same lines and exit
# codes; this needs nothing but a shell and curl.
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

deadline_s=10
newline='
'

case "$1" in
  -h | --help) echo "$usage"; exit 0 ;;
  http://?* | https://?*) ;;
  *) echo "$usage" >&2; exit 64 ;;
esac
if [ $# -ne 1 ]; then echo "$usage" >&2; exit 64; fi
command -v curl >/dev/null || { echo "$0: curl is not here; install it" >&2; exit 69; }

url=$1
while [ "$url" != "${url%/}" ]; do url=${url%/}; done
url=${url%/v1}

# The key goes through standard input: whoever lists the processes does not see it.
ask() {
  answer=$(printf '%s' "${API_KEY:+header = \"authorization: Bearer $API_KEY\"}" |
    curl -s -K - -m "$deadline_s" -w '\n%{http_code}' "$url$1")
  failure=$?
  status=${answer##*"$newline"}
  body=${answer%"$newline"*}
  case $failure in
    0) return ;;
    6) why="there is no host of this name" ;;
    7) why="connection refused" ;;
    28) why="no answer within $deadline_s s" ;;
    *) why="the connection broke" ;;
  esac
  verdict 69 "nobody answers: $why; is it started, and is this its port?"
}

verdict() {
  echo "$url: $2"
  exit "$1"
}

# The text that stands behind a key of one JSON answer; nothing where there is none.
text_of() {
  printf '%s' "$body" | tr -d '\r\n' |
    sed -n "s/.*\"$1\" *: *\"\([^\"\\\\]*\(\\\\.[^\"\\\\]*\)*\)\".*/\1/p" | sed 's/\\\(["\\/]\)/\1/g'
}

# LiteLLM's /health asks every model behind it a question, and pays for the answers.
for path in /health/readiness /health; do
  ask "$path"
  case $status in 200 | 503) break ;; esac
done
if [ "$status" = 503 ]; then
  phase=$(text_of phase)
  why=$(text_of reason)
  why=${why:-$(text_of message)}
  why=${why:-/health answers 503}
  if [ "$phase" = failed ]; then verdict 70 "its model could not be loaded: $why"; fi
  verdict 75 "not ready: $why${phase:+ (phase: $phase)}"
fi
model='' device=''
if [ "$status" = 200 ]; then
  model=$(text_of model)
  device=$(text_of device)
fi

ask /v1/models
case $status in
  200) printf '%s' "$body" | tr -d ' \t\r\n' | grep -q '^{.*"data":\[' || status="$status, no list" ;;
  401 | 403) if [ "$API_KEY" ]; then verdict 77 "does not take this API_KEY"; fi; verdict 77 "wants a key; set API_KEY" ;;
  429 | 502 | 503 | 504) verdict 75 "not ready: /v1/models answers $status" ;;
esac
if [ "$status" != 200 ]; then
  verdict 76 "somebody answers, but not with OpenAI's API: /v1/models is no list of models (${status%,*})"
fi
first=$(printf '%s' "$body" | tr ',{' "$newline$newline" | sed -n 's/^[[:space:]]*"id" *: *"\([^"]*\)".*/\1/p' | head -n 1)
model=${model:-${first:-no model}}
verdict 0 "ready, serves $model${device:+ on $device}"
