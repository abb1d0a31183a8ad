#!/bin/sh
# The tests of the built book drive Debian's chromium. Install it where it is missing and we may.
for name in chromium chromium-browser google-chrome; do
	command -v "$name" >/dev/null 2>&1 && exit 0
done
if ! command -v apt-get >/dev/null 2>&1; then
	echo "chromium is missing and there is no apt-get; the browser tests will be skipped" >&2
	exit 0
fi
if [ "$(id -u)" = 0 ]; then as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root="sudo"
else
	echo "chromium is missing; install it (apt-get install chromium) to run the browser tests" >&2
	exit 0
fi
echo "installing chromium for the tests of the built book"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
