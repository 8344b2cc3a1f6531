//! Changed join commands and join files.

use node_bootstrap::connect::{Dialer, tls_config};

use super::*;

#[path = "../../tests/support/fuzz.rs"]
mod fuzz;

const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBmjCCAT+gAwIBAgIUaPRMyKVnFqkc0AFRPMt1WOxoUBYwCgYIKoZIzj0EAwIw
ITEfMB0GA1UEAwwWUGlsb3Rob3VzZSBwbGF0Zm9ybSBDQTAgFw0yNjEyMDEwNjIz
NDdaGA8yMTI2MTEwNzA2MjM0N1owITEfMB0GA1UEAwwWUGlsb3Rob3VzZSBwbGF0
Zm9ybSBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIPpOYvAACqCL0NnjaNm
tPqR7OHm6TR8+874tKZZ4ok+SotPqN1kRUoUmisvPEleyiUFzUROYoqnvRHu7FEK
v16jUzBRMB0GA1UdDgQWBBQhAqmUvzJjzRrrioWUN+caFgnMljAfBgNVHSMEGDAW
gBQhAqmUvzJjzRrrioWUN+caFgnMljAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0kAMEYCIQCdiJQtj9ubeTFdl8n2JuLHt3MjifPRJ/UFzBYPGcjE9gIhANyI
/l8yuaErTUuQ4knfUJ3npnWt7ga5hNimlethogvF
-----END CERTIFICATE-----
";
const KEY: &str = "ed25519:qGwxjXlfZnx4anu8/kZrVwcRMFpnyz/5PSVgZpoonpc=";
const TOKEN: &str = "pilothouse_join_0123456789abcdef_secret0123456789";

#[test]
fn a_join_command_of_any_words() {
    let ca = base64::engine::general_purpose::STANDARD.encode(CA);
    let line = format!("pilothouse-node join --server 192.0.2.1:8443 --domain x.internal --ca-pem-base64 {ca}");
    let corpus = [
        format!("{line} --signing-key {KEY}"),
        format!(
            "{line} --node-name web-1 --labels zone=a,example.com/rack=7 --ignore-preflight-errors memory --foreground"
        ),
    ]
    .map(String::into_bytes);
    fuzz::run("join command", &corpus, |input| {
        let line = String::from_utf8_lossy(input);
        let Ok(Cli { command: Command::Join(join), .. }) = Cli::try_parse_from(line.split_whitespace()) else { return };
        // A file that a changed word names is nobody's.
        if join.ca_file.is_none() && join.token_file.is_none() {
            drop(join_config(&join));
        }
        assert!(join.signing_key.is_none_or(|key| signature::parse_key(&key).is_ok()));
        assert!(join.labels.iter().all(|(key, value)| labels::parse(&format!("{key}={value}")).is_ok()));
    });
}

#[test]
fn a_join_file_of_any_bytes() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = |server: &str| {
        let join = serde_json::json!({"server": server, "domain": "x.internal", "ca_pem": CA, "token": TOKEN, "node_name": "web-1", "signing_key": KEY});
        join.to_string().into_bytes()
    };
    let corpus = [file("192.0.2.1:8443"), file("[2001:db8::1]:443"), file("gw.example.com:443")];
    assert!(tls_config(CA, None, b"h2").is_ok());
    fuzz::run("join file", &corpus, |input| {
        let Ok(join) = serde_json::from_slice::<JoinConfig>(input) else { return };
        if join.token.contains("secret0123456789") && !join.server.contains("secret") && !join.domain.contains("secret")
        {
            assert!(!format!("{join:?}").contains("secret"), "a token stays out of Debug");
        }
        let id = Membership::token_id(&join.token);
        assert!(
            !id.contains("secret0123456789") || !join.token.starts_with(TOKEN),
            "the secret part is not the public one"
        );
        drop(tls_config(&join.ca_pem, None, b"h2"));
        drop(Dialer::new(&join.server, Some("http://proxy:3128".into()), Some(join.domain)));
    });
}
