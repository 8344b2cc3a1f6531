//! Changed bytes at what reads first: the ClientHello, and the head of a CONNECT.

use futures::FutureExt;
use tokio::io::AsyncReadExt;

use crate::{
    hello::{self, HelloError, MAX_HELLO},
    tunnel::{head, refusal::Refusal, target::Target},
};

#[path = "../../../tests/support/fuzz.rs"]
mod fuzz;

/// A vector of TLS (RFC 8446 section 3.4): its length in so many bytes, and its bytes.
fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[4 - width..], bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, body)].concat()
}

/// A ClientHello as a client sends it, but for its random bytes: a failure shall come again.
fn client_hello(name: &str, alpn: &str) -> Vec<u8> {
    let extensions = [
        extension(0, &vector(2, &[&[0], &vector(2, name.as_bytes())[..]].concat())),
        extension(10, &vector(2, &[0, 0x1d])),
        extension(13, &vector(2, &[4, 3, 8, 4])),
        extension(16, &vector(2, &vector(1, alpn.as_bytes()))),
        extension(43, &vector(1, &[3, 4])),
        extension(51, &vector(2, &[&[0, 0x1d], &vector(2, &[7; 32])[..]].concat())),
    ]
    .concat();
    let suites = vector(2, &[0x13, 1, 0x13, 2]);
    let body =
        [&[3, 3][..], &[7; 32], &vector(1, &[7; 32]), &suites, &vector(1, &[0]), &vector(2, &extensions)].concat();
    [&[0x16, 3, 1], &vector(2, &[&[1], &vector(3, &body)[..]].concat())[..]].concat()
}

/// What a reader makes of these bytes when they come in two pieces, or at once.
fn read_hello(input: &[u8], at: usize) -> Result<Option<String>, HelloError> {
    let mut pieces = input[..at].chain(&input[at..]);
    let hello = hello::read(&mut pieces).now_or_never().unwrap()?;
    assert!(input.starts_with(&hello.raw) && hello.raw.len() <= MAX_HELLO, "replayed is what came");
    Ok(hello.server_name())
}

#[test]
fn a_client_hello_of_any_bytes() {
    let label = "0123456789abcdefghjkmnpqrs";
    let hellos = [("api", "h2"), ("link", "pilothouse-tunnel/1"), ("egress", "http/1.1")];
    let mut corpus: Vec<Vec<u8>> =
        hellos.iter().map(|(kind, alpn)| client_hello(&format!("{label}.{kind}.pilothouse.internal"), alpn)).collect();
    for hello in &corpus {
        assert!(read_hello(hello, 0).unwrap().unwrap().starts_with(label));
    }
    corpus.extend([b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00".to_vec()]);
    fuzz::run("ClientHello", &corpus, |input| {
        let (whole, halves) = (read_hello(input, 0), read_hello(input, input.len() / 2));
        if let (Ok(whole), Ok(halves)) = (whole, halves) {
            assert_eq!(whole, halves, "a name does not depend on how the bytes came");
        }
    });
}

fn read_head(input: &[u8], at: usize) -> Result<Target, Refusal> {
    let mut pieces = input[..at].chain(&input[at..]);
    let request = head::read(&mut pieces).now_or_never().unwrap()?;
    let mut after = request.early.to_vec();
    pieces.read_to_end(&mut after).now_or_never().unwrap().unwrap();
    assert!(input.ends_with(&after), "what follows the head is the client's, and all of it");
    Ok(request.target)
}

#[test]
fn the_head_of_a_connect_of_any_bytes() {
    let corpus: Vec<Vec<u8>> = [
        "CONNECT web-1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
        "CONNECT 10.96.0.1:443 HTTP/1.0\r\n\r\n\x16\x03\x01",
        "CONNECT [::1]:443 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ]
    .iter()
    .map(|head| head.as_bytes().to_vec())
    .collect();
    fuzz::run("CONNECT head", &corpus, |input| {
        let whole = read_head(input, 0);
        match &whole {
            Ok(target) => assert_eq!(Target::parse(&target.to_string()).as_ref(), Ok(target)),
            Err(refusal) => {
                assert!((400..600).contains(&refusal.status), "{refusal:?}");
                assert_eq!(refusal.response().matches(['\r', '\n']).count(), 8, "no line is added: {refusal:?}");
            }
        }
        // How much a reader has when it finds a head too large depends on how it came.
        if input.len() < 8 * 1024 {
            assert_eq!(read_head(input, input.len() / 2), whole);
        }
    });
}
