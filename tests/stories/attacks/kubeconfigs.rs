//! Attacks on a running platform: kubeconfigs.
