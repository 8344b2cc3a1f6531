//! Enrollment's words, and a whole one through an HTTP proxy with real TLS behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use node_protocol::enrollment_server::{Enrollment, EnrollmentServer};
use node_protocol::{Certificates, NodeConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::*;
use crate::link::tests::{Authority, proxy, soon};
use crate::signature::tests::{Signer, config, manifest};

struct Platform(Arc<Authority>, NodeConfig);

#[tonic::async_trait]
impl Enrollment for Platform {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollReply>, Status> {
        let asked = request.into_inner();
        if asked.token != "pilothouse_join_good" {
            return Err(Status::unauthenticated("no such token"));
        }
        let [link_cert, kubelet_cert, proxy_cert, serving_cert] =
            [asked.link_csr, asked.kubelet_csr, asked.proxy_csr, asked.serving_csr].map(|csr| self.0.sign(&csr, 1));
        Ok(Response::new(EnrollReply {
            node_id: "nod_x".into(),
            cluster_id: "cls_x".into(),
            node_name: asked.node_name,
            certificates: Some(Certificates { link_cert, kubelet_cert, proxy_cert, serving_cert }),
            config: Some(self.1.clone()),
        }))
    }
}

/// A gateway that ends TLS as `link.test.internal` and serves enrollment.
async fn gateway(authority: Arc<Authority>, first: NodeConfig) -> String {
    let (certificate, key) = authority.leaf("link.test.internal");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn::GRPC.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service =
                TowerToHyperService::new(EnrollmentServer::new(Platform(Arc::clone(&authority), first.clone())));
            tokio::spawn(async move {
                Builder::new(TokioExecutor::new()).http2_only().serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    address
}

#[tokio::test]
async fn a_machine_enrolls_through_a_proxy() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Arc::new(Authority::new());
    let server = gateway(Arc::clone(&authority), NodeConfig::default()).await;
    let served: Arc<AtomicUsize> = Arc::default();
    let through = format!("http://{}", proxy(server.clone(), Arc::clone(&served)).await);
    let dialer = Dialer::new(&server, Some(through), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let applicant = Applicant {
        fingerprint: "f".into(),
        facts: MachineFacts { hostname: "web-1".into(), ..MachineFacts::default() },
        keys: Store::new(dir.path().join("pki")),
    };
    let join = |token: &str| JoinConfig {
        server: server.clone(),
        domain: "test.internal".into(),
        ca_pem: authority.pem.clone(),
        token: Zeroizing::new(token.to_owned()),
        node_name: String::new(),
        signing_key: String::new(),
    };
    let refused = soon(enroll_by(&dialer, &join("pilothouse_join_bad"), &applicant)).await.unwrap_err();
    assert!(!refused.may_pass() && !dir.path().join("pki/current").exists(), "{refused}");
    let reply = soon(enroll_by(&dialer, &join("pilothouse_join_good"), &applicant)).await.unwrap();
    assert_eq!((reply.node_name.as_str(), served.load(Ordering::SeqCst)), ("web-1", 2));
    assert!(applicant.keys.link().is_ok(), "its certificates are on disk");
    // The proxy sees TLS and no more: another CA is noticed behind it too.
    let other = JoinConfig { ca_pem: Authority::new().pem, ..join("pilothouse_join_good") };
    let intercepted = soon(enroll_by(&dialer, &other, &applicant)).await.unwrap_err();
    assert!(intercepted.to_string().contains("intercept"), "{intercepted}");
}

/// A platform that gives out what its signing key did not sign gets no node: neither certificates nor anything else is kept.
#[tokio::test]
async fn a_machine_does_not_join_for_parts_that_are_not_signed() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (platform, other) = (Signer::new(), Signer::new());
    let (authority, sum) = (Arc::new(Authority::new()), "a".repeat(64));
    let good = NodeConfig { signed: Some(platform.signed(&manifest("1.36.3", &sum))), ..config("1.36.3", &sum) };
    let changed = NodeConfig { signed: good.signed.clone(), ..config("1.36.3", &"b".repeat(64)) };
    let foreign = NodeConfig { signed: Some(other.signed(&manifest("1.36.3", &sum))), ..good.clone() };
    let stripped = NodeConfig { signed: None, ..good.clone() };
    for (first, joins) in [(changed, false), (foreign, false), (stripped, false), (good, true)] {
        let server = gateway(Arc::clone(&authority), first).await;
        let dir = tempfile::tempdir().unwrap();
        let keys = Store::new(dir.path().join("pki"));
        let applicant = Applicant { fingerprint: "f".into(), facts: MachineFacts::default(), keys };
        let join = JoinConfig {
            server: server.clone(),
            domain: "test.internal".into(),
            ca_pem: authority.pem.clone(),
            token: Zeroizing::new("pilothouse_join_good".to_owned()),
            node_name: "n1".into(),
            signing_key: platform.key(),
        };
        let outcome = soon(enroll_by(&Dialer::new(&server, None, None).unwrap(), &join, &applicant)).await;
        assert_eq!(outcome.is_ok(), joins, "{outcome:?}");
        assert_eq!(applicant.keys.link().is_ok(), joins, "certificates are kept only of a platform that is believed");
        if let Err(error) = outcome {
            assert!(matches!(error, EnrollError::Signature(_)) && !error.may_pass(), "{error}");
        }
    }
}

#[test]
fn a_hostname_becomes_a_node_name() {
    assert_eq!(node_name("", "Web_1.example.com"), "web-1");
    assert_eq!(node_name("Web-1", "host"), "web-1");
    assert_eq!(node_name("", ""), "node");
    assert_eq!(node_name("", &"x".repeat(90)).len(), 63);
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let refused = |status: tonic::Status| EnrollError::Refused { status: Box::new(status) };
    assert!(refused(tonic::Status::failed_precondition("x")).may_pass());
    assert!(refused(tonic::Status::unavailable("x")).may_pass());
    assert!(!refused(tonic::Status::unauthenticated("x")).may_pass());
    assert!(!refused(tonic::Status::permission_denied("x")).may_pass());
    let text = refused(tonic::Status::unauthenticated("the token was used")).to_string();
    assert!(text.contains("not accepted") && text.contains("the token was used"), "{text}");
}
