#!/bin/sh
# bundle-llamacpp.sh OUT [SERVER]: a llama-server with every library it needs, in one folder.
#
# The C library and its loader are part of it, so that OUT/run works in an image of any distribution,
# older ones too. The driver's libraries are left out: they come with the card. SERVER is searched for
# when it is not given.
set -eu

out=$1 server=${2:-}
[ -n "$server" ] || server=$(command -v llama-server || find / -xdev -type f -name llama-server | head -n 1)
if [ -z "$server" ]; then
  echo "there is no llama-server in this image; ENGINE_IMAGE names one that has it" >&2
  exit 66
fi
server=$(readlink -f "$server")
beside=$(dirname "$server")

mkdir -p "$out"
cp "$server" "$out/llama-server"
cp "$beside"/LICENSE* "$out/" 2>/dev/null || :

# The backends are opened while it runs, so nothing is linked to them.
for backend in "$beside"/libggml-*.so /usr/lib/*/libggml-*.so /usr/lib/*/ggml/backends*/libggml-*.so; do
  [ ! -e "$backend" ] || cp -L "$backend" "$out/"
done

needed=$(for file in "$server" "$out"/libggml-*.so; do
  [ ! -e "$file" ] || LD_LIBRARY_PATH=$beside ldd "$file"
done | grep -vE 'lib(cuda|nvidia-[a-z]+)\.so' | sort -u)
missing=$(echo "$needed" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found$/\1/p' | tr '\n' ' ')
if [ -n "$missing" ]; then
  echo "$server needs what this image does not have: $missing" >&2
  exit 66
fi
libraries=$(echo "$needed" | sed -nE 's/^[[:space:]]*([^ ]+ => )?(\/[^ ]+) \(0x[0-9a-f]+\)$/\2/p')
# What the driver's libraries ask for must be of the same release as the C library.
c_library=$(dirname "$(echo "$libraries" | grep '/libc\.so')")
for library in $libraries "$c_library"/libdl.so.* "$c_library"/libpthread.so.* "$c_library"/librt.so.*; do
  [ ! -e "$library" ] || cp -L "$library" "$out/"
done

# The loader runs the program, and ggml looks for its backends beside what runs: hence one folder.
loader=$(ls "$out" | grep '^ld-linux' || :)
if [ -z "$loader" ]; then
  echo "$server does not use glibc; ENGINE_IMAGE names an image of Debian's or Ubuntu's kind" >&2
  exit 66
fi
cat >"$out/run" <<RUN
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
exec "\$here/$loader" --library-path "\$here" "\$here/llama-server" "\$@"
RUN
chmod 0755 "$out/run"
"$out/run" --version
