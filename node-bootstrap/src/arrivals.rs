//! Which parts still travel: what has arrived is put to use meanwhile, so that the line and the processors work at the same time.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// The names of parts that are not usable yet. The default: everything is there.
#[derive(Debug, Default)]
pub struct Arrivals(watch::Sender<BTreeSet<String>>);

impl Arrivals {
    /// All of these are still to come.
    pub fn expecting<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(watch::Sender::new(names.into_iter().map(str::to_owned).collect()))
    }

    /// This part is usable now.
    pub fn note(&self, name: &str) {
        self.0.send_if_modified(|missing| missing.remove(name));
    }

    /// True when this part is usable.
    pub fn has(&self, name: &str) -> bool {
        !self.0.borrow().contains(name)
    }

    /// Waits until nothing is missing of which `wanted` says yes; what was never expected is not waited for.
    pub async fn of(&self, wanted: impl Fn(&str) -> bool) {
        let arrived = |missing: &BTreeSet<String>| !missing.iter().any(|name| wanted(name));
        // It ends with the sender, which is `self`.
        let _ = self.0.subscribe().wait_for(arrived).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_waits_goes_on_with_the_last_of_what_it_wants() {
        let arrivals = Arrivals::expecting(["containerd", "runc", "kubelet"]);
        let mut waiting = Box::pin(arrivals.of(|name| name != "kubelet"));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        arrivals.note("runc");
        assert!(arrivals.has("runc") && !arrivals.has("kubelet"));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        arrivals.note("containerd");
        assert_eq!(waiting.as_mut().now_or_never(), Some(()));
        assert_eq!(arrivals.of(|name| name == "kubelet").now_or_never(), None);
        assert_eq!(arrivals.of(|name| name == "kube-proxy").now_or_never(), Some(()));
        assert_eq!(Arrivals::default().of(|_| true).now_or_never(), Some(()));
    }
}
