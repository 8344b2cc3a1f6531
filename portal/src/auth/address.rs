//! Networks instead of addresses: whoever has one IPv6 address has its whole /64, and one place has many addresses.

use std::net::IpAddr;

/// The part of an address that one caller has: all of IPv4, the /64 of IPv6. IPv4 in IPv6's clothes is IPv4.
pub fn network(address: IpAddr) -> IpAddr {
    cut(address, 32, 64)
}

/// The network of a place, as it is remembered and shown: `192.0.2.0/24`, `2001:db8:1::/48`.
pub fn shared_network(address: IpAddr) -> String {
    let length = if address.to_canonical().is_ipv4() { 24 } else { 48 };
    format!("{}/{length}", cut(address, 24, 48))
}

fn cut(address: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & (u32::MAX << (32 - v4))).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << (128 - v6))).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_network() {
        let table = [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1::/48"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ];
        for (address, own, shared) in table {
            let address = address.parse().unwrap();
            assert_eq!((network(address).to_string().as_str(), shared_network(address).as_str()), (own, shared));
        }
    }
}
