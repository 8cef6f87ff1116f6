# shellcheck shell=bash disable=SC2154
# Apptainer, which Debian 12 does not have: that of unstable, with the C library that it wants beside it.

install_apptainer() {
    if ! apptainer --version > /dev/null 2>&1; then
        fetch_apptainer
    fi
    mkdir -p /var/lib/apptainer/mnt/session
    [ ! -e /dev/fuse ] || chmod 666 /dev/fuse
}

fetch_apptainer() {
    local folder=$place/apptainer lists=$place/apptainer/lists
    rm -rf "$folder"
    mkdir -p "$lists/partial" "$folder/debs" "$folder/lib"
    # The same mirror that this machine uses.
    local mirror
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -1)
    [ -n "$mirror" ] || fail "apt has no sources, so Apptainer cannot be fetched"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror unstable main" > "$folder/sources.list"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$lists" -o APT::Sandbox::User=root)
    "${apt[@]}" update > "$folder/log" 2>&1 || fail "Debian unstable cannot be read: $folder/log"
    (cd "$folder/debs" && "${apt[@]}" download apptainer libc6 libgcc-s1 libseccomp2 libsqlite3-0) >> "$folder/log" 2>&1 \
        || fail "Apptainer cannot be fetched: $folder/log"
    local deb
    for deb in "$folder"/debs/*.deb; do
        case $deb in
            */apptainer_*) dpkg -x "$deb" / ;;
            *) dpkg -x "$deb" "$folder/lib" ;;
        esac
    done
    local loader libraries program
    loader=$(find "$folder/lib" -name 'ld-linux-x86-64.so.2' | head -1)
    libraries=$(dirname "$(find "$folder/lib" -name libc.so.6 | head -1)")
    # The one that says whether it is installed comes last.
    for program in "$(find /usr/lib* -path '*apptainer/bin/starter' | head -1)" /usr/bin/apptainer; do
        patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$program"
    done
    ln -sf apptainer /usr/bin/singularity # what spython calls it
    apptainer --version > /dev/null || fail "Apptainer was installed and does not run: $folder/log"
}

# What was unpacked, if it was us: it does not run without the C library that goes with the folder.
remove_apptainer() {
    local deb file
    for deb in "$place"/apptainer/debs/apptainer_*.deb; do
        [ -e "$deb" ] || continue
        dpkg --fsys-tarfile "$deb" | tar --list | tac | while read -r file; do
            case $file in
                *apptainer*/) rmdir --ignore-fail-on-non-empty "/$file" 2> /dev/null || true ;;
                */) ;;
                *) rm -f "/$file" ;;
            esac
        done
        rm -f /usr/bin/singularity
    done
}
