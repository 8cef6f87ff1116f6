# shellcheck shell=bash disable=SC2154
# A small Debian for images to begin with, where no registry can be reached: what `docker://debian:12-slim` is elsewhere.

# Owned by an ordinary user, who builds images; the mirror is the one that this machine uses.
make_root_file_system() {
    local folder=$place/images
    [ -x "$folder/debian/usr/bin/dpkg" ] && return
    mkdir -p "$folder"
    local mirror
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | sed -n 's/ bookworm$//p' | head -1)
    [ -n "$mirror" ] || fail "apt has no sources of Debian 12, so no root file system can be made"
    rm -rf "$folder/debian" "$folder/new" "$folder/debian.tar"
    mmdebstrap --quiet --variant=minbase bookworm "$folder/debian.tar" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" > "$folder/log" 2>&1 \
        || fail "mmdebstrap failed: $folder/log"
    mkdir "$folder/new"
    chown "${users[0]}:" "$folder" "$folder/new"
    # Devices are none of a user's business, and images have their own.
    runuser -u "${users[0]}" -- tar --extract --file - --directory "$folder/new" --exclude './dev/*' --no-same-owner < "$folder/debian.tar"
    mv "$folder/new" "$folder/debian"
    rm "$folder/debian.tar"
}
