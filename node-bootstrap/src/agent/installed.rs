//! What joining puts on a machine, written into the ledger before the first deed: `reset` takes off exactly that.

use std::net::SocketAddr;

use node_linux::footprint;

use super::{NETWORK, SERVICES, desired};
use crate::config::Paths;
use crate::ledger::Ledger;
use crate::network;
use crate::spec::Layout;

/// Notes what is about to be put on the machine, before the first deed.
pub(super) fn record(ledger: &mut Ledger, paths: &Paths) {
    let installed = &mut ledger.installed;
    installed.dirs.extend([paths.state(), paths.run(), paths.bin()]);
    installed.shared_dirs.extend([
        paths.at("/opt/pilothouse"),
        paths.at("/etc/pilothouse"),
        paths.at("/var/cache/pilothouse"),
    ]);
    installed.cgroups.extend([SERVICES.to_owned(), "/kubepods".to_owned()]);
    installed.network = Some(NETWORK.to_owned());
    installed.shared_dirs.extend(footprint::missing(&paths.at("/")));
    installed.dirs.extend(Some(Layout::joined(paths).pod_logs).filter(|dir| !dir.exists()));
    let own = std::iter::once(("ip", network::TABLE));
    installed.tables.extend(own.chain(network::CHILDREN_TABLES).map(|(family, name)| format!("{family} {name}")));
    if let Some(config) = &ledger.config {
        let address = config.api_address.parse::<SocketAddr>();
        installed.addresses.extend(address.map(|address| address.ip().to_string()));
        installed.addresses.extend(desired::node_ip(config).map(|address| address.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::desired::tests::config;
    use super::*;

    #[test]
    fn what_will_be_installed_is_recorded_first() {
        let paths = Paths::new("/");
        let mut ledger = Ledger { config: Some(config()), ..Ledger::default() };
        record(&mut ledger, &paths);
        assert!(ledger.installed.addresses.contains("198.18.0.1"));
        assert!(ledger.installed.tables.contains("ip pilothouse_node"));
        assert!(ledger.installed.cgroups.contains("/kubepods"));
    }
}
