//! Attacks on a running platform: people.
