#!/bin/sh
# Asks the registries which content each image of docker-compose.yml and the Dockerfile has today, and writes
# docker-compose.digests.yml, which pins it: a tag may be moved to another content, a digest cannot. Commit that file, and
# name both: COMPOSE_FILE=docker-compose.yml:docker-compose.digests.yml in .env.
set -eu
cd "$(dirname "$0")/.."

pinned() {
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1")
  case $digest in
    sha256:????????????????????????????????????????????????????????????????) printf '%s@%s' "$1" "$digest" ;;
    *)
      echo "The registry told no digest of $1, but '$digest'." >&2
      return 1
      ;;
  esac
}

new=docker-compose.digests.yml.new
trap 'rm -f "$new"' EXIT
python_image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' deploy/Dockerfile)
base=$(pinned "$python_image")
{
  echo "# Written by deploy/pin-images.sh: the images of docker-compose.yml by their content."
  echo "services:"
  # Each service stands at two spaces, its image and whether it is built here at four.
  awk '/^services:/ { on = 1; next } /^[a-z]/ { on = 0 }
       on && /^  [a-z0-9-]+:/ { name = $1 } on && /^    (image|build):/ { sub(":", "", $1); print name, $1, $2 }' docker-compose.yml |
    while read -r name key image; do
      case $key:$image in
        build:*) printf '  %s\n    build:\n      args:\n        PYTHON_IMAGE: %s\n' "$name" "$base" ;;
        image:ml-assets*) ;;
        *)
          image=$(pinned "$image")
          printf '  %s\n    image: %s\n' "$name" "$image"
          ;;
      esac
    done
} >"$new"
mv "$new" docker-compose.digests.yml
echo "Wrote docker-compose.digests.yml."
