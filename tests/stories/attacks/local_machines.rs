//! Attacks on a running platform: local_machines.
