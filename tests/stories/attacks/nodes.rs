//! Attacks on a running platform: nodes.
