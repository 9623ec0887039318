case "$1" in
    configure | remove) if [ -e /lib/modules/@release@/modules.order ]; then depmod @release@; fi ;;
esac
