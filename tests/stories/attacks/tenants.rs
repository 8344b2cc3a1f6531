//! Attacks on a running platform: tenants.
