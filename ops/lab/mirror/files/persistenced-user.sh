if [ "$1" = install ] && ! getent passwd nvidia-persistenced >/dev/null; then
    useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin \
        nvidia-persistenced
fi
