//! Attacks on a running platform: portal.
