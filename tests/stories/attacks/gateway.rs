//! Attacks on a running platform: gateway.
