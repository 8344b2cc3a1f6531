//! The HTTP proxy between a machine and its gateway, as `HTTPS_PROXY` and `NO_PROXY` name it.

use std::io;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::connect::ConnectError;

/// The longest answer of a proxy, in bytes, and its most header fields.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// An HTTP proxy, and what it wants to see before it lets one through.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// `host:port`.
    pub(crate) peer: String,
    /// Its `Debug` leaves the credentials out.
    intercept: Intercept,
}

impl Proxy {
    /// The proxy for a gateway `host:port`; none where `no_proxy` lists that host.
    pub(crate) fn for_gateway(gateway: &str, url: &str, no_proxy: &str) -> Result<Option<Self>, ConnectError> {
        let uri = Uri::builder().scheme("https").authority(gateway).path_and_query("/").build();
        let uri = uri.map_err(|_| ConnectError::Name(gateway.to_owned()))?;
        if is_exempt(&uri, no_proxy) {
            return Ok(None);
        }
        let intercept = Matcher::builder().https(escape_password(url)).build().intercept(&uri);
        let intercept = intercept.filter(|proxy| proxy.uri().scheme_str() == Some("http"));
        let intercept = intercept.ok_or(ConnectError::ProxyUrl)?;
        let (host, port) = (intercept.uri().host().unwrap_or_default(), intercept.uri().port_u16().unwrap_or(80));
        Ok(Some(Self { peer: format!("{host}:{port}"), intercept }))
    }

    /// Sends CONNECT (RFC 9110, 9.3.6) and reads the answer.
    pub(crate) async fn connect(&self, stream: &mut TcpStream, gateway: &str) -> Result<(), ConnectError> {
        let failed = |source| ConnectError::Tcp { peer: self.peer.clone(), source };
        stream.write_all(&self.request(gateway)).await.map_err(failed)?;
        let head = read_head(stream).await.map_err(failed)?;
        if is_success(&head) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        Err(ConnectError::Proxy { peer: self.peer.clone(), said })
    }

    fn request(&self, gateway: &str) -> Vec<u8> {
        let mut request = format!("CONNECT {gateway} HTTP/1.1\r\nHost: {gateway}\r\n").into_bytes();
        if let Some(authorization) = self.intercept.basic_auth() {
            request.extend([b"Proxy-Authorization: ", authorization.as_bytes(), b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        request
    }
}

/// The matcher ends user and password at the first `@`, people (and curl) at the last.
fn escape_password(url: &str) -> String {
    url.rsplit_once('@').map_or(url.to_owned(), |(user, host)| format!("{}@{host}", user.replace('@', "%40")))
}

/// `NO_PROXY`: names with their subdomains, addresses, networks, `*`.
fn is_exempt(gateway: &Uri, no_proxy: &str) -> bool {
    // The matcher takes `*` for every name; curl, and we, for every address as well.
    let all = no_proxy.split(',').any(|entry| entry.trim() == "*");
    all || Matcher::builder().all("http://any").no(no_proxy).build().intercept(gateway).is_none()
}

/// Reads byte by byte up to the empty line, or to what is no HTTP: what follows the head is not ours.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while head.len() < MAX_HEAD {
        head.push(stream.read_u8().await?);
        if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") {
            break;
        }
    }
    Ok(head)
}

fn is_success(head: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let is_whole = response.parse(head).is_ok_and(|status| status.is_complete());
    is_whole && response.code.is_some_and(|code| (200..300).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_hop(gateway: &str, no_proxy: &str) -> String {
        let proxy = Proxy::for_gateway(gateway, "http://user:pw@proxy.example:3128/", no_proxy).unwrap();
        proxy.map_or(gateway.to_owned(), |proxy| proxy.peer)
    }

    fn authorization(user: &str) -> Option<String> {
        let proxy = Proxy::for_gateway("192.0.2.9:8443", &format!("http://{user}@proxy"), "").unwrap().unwrap();
        let request = String::from_utf8(proxy.request("192.0.2.9:8443")).unwrap();
        assert!(!format!("{proxy:?}").contains(user), "credentials stay out of Debug");
        request.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic ")).map(str::to_owned)
    }

    #[test]
    fn a_proxy_is_used_unless_exempt() {
        let gateway = "192.0.2.9:8443";
        for exempting in ["192.0.2.9", "192.0.2.0/24", "*", " a.example , 192.0.2.9", "a.example,*"] {
            assert_eq!(first_hop(gateway, exempting), gateway, "{exempting}");
        }
        for other in ["", "2.9,0.2.9", "192.0.3.0/24", "example.com"] {
            assert_eq!(first_hop(gateway, other), "proxy.example:3128", "{other}");
        }
        for exempting in [".example.com", "example.com", "GW.example.com"] {
            assert_eq!(first_hop("gw.example.com:443", exempting), "gw.example.com:443", "{exempting}");
        }
        assert_eq!(first_hop("gwexample.com:443", "example.com"), "proxy.example:3128");
        assert_eq!(first_hop("[2001:db8::9]:443", "2001:db8::/64"), "[2001:db8::9]:443");
    }

    #[test]
    fn a_password_is_sent_as_it_is_meant() {
        // base64 of `me:a@b`, `me:50%` and `me:%zz`.
        for (written, meant) in
            [("me:a%40b", "bWU6YUBi"), ("me:a@b", "bWU6YUBi"), ("me:50%", "bWU6NTAl"), ("me:%zz", "bWU6JXp6")]
        {
            assert_eq!(authorization(written).as_deref(), Some(meant), "{written}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_said() {
        let of = |url| Proxy::for_gateway("x:1", url, "");
        for url in ["https://proxy:1", "socks5://proxy:1", "http://", "http://two words"] {
            assert!(matches!(of(url), Err(ConnectError::ProxyUrl)), "{url}");
        }
        assert_eq!(of("http://proxy").unwrap().unwrap().peer, "proxy:80");
        assert_eq!(of("proxy:3128").unwrap().unwrap().peer, "proxy:3128");
    }

    #[test]
    fn only_a_whole_answer_is_a_success() {
        assert!(is_success(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"));
        assert!(is_success(b"HTTP/1.0 200\n\n"));
        for head in
            ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 407 200\r\n\r\n", "SSH-2.0 200\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n"]
        {
            assert!(!is_success(head.as_bytes()), "{head}");
        }
    }
}
