//! QEMU as it is driven from outside: the command line, the QMP conversation, and libvirt domains.
