//! Attacks on a running platform: process.
