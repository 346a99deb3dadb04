//! The SDM agent: virtual machines with far memory on one compute brick.
